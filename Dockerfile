# All images. images/matrix.yaml lists them; images/README.md has sizes, and how to build, pin and check them. `make images`
#
# Layers are ordered by how often they change: system, torch, other wheels, code. `train` and `generate` share most layers.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE} AS base
# Packages are not pinned, to get Debian's security updates; pin BASE by digest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && groupadd --gid 65532 adainf \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin adainf \
    && python3 -m venv --without-pip /opt/adainf
# Runs with any uid, with or without an entry in /etc/passwd: all writes go to /tmp, and bytecode is compiled at build time.
ENV PATH=/opt/adainf/bin:$PATH \
    HOME=/tmp USER=adainf LOGNAME=adainf \
    XDG_CACHE_HOME=/tmp/.cache ADAINF_CACHE=/tmp/cache \
    HF_HOME=/tmp/.cache/huggingface TORCH_HOME=/tmp/.cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/inductor TRITON_CACHE_DIR=/tmp/.cache/triton MPLCONFIGDIR=/tmp/.cache/matplotlib \
    PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 PYTHONDONTWRITEBYTECODE=1 \
    PIP_PYTHON=/opt/adainf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]
CMD ["adainf", "--help"]

FROM base AS wheel
COPY pyproject.toml README.md LICENSE /source/
COPY adainf /source/adainf
RUN pip wheel --no-deps --wheel-dir /wheel /source

# Without numpy and Pillow (used only by commands on images), the asyncio client, and botocore's data of other services.
FROM base AS controller
COPY images/controller/requirements.lock /opt/adainf/
RUN pip install --compile --no-deps --require-hashes --requirement /opt/adainf/requirements.lock \
    && rm -r /opt/adainf/lib/python3*/site-packages/kubernetes/aio \
    && find /opt/adainf/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
        -not -name s3 -not -name 'sso*' -not -name sts -exec rm -r {} +
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532

FROM base AS browse
COPY images/browse/requirements.lock /opt/adainf/
RUN pip install --compile --require-hashes --requirement /opt/adainf/requirements.lock
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532

# torch's wheels include CUDA, so the base needs none; the driver is that of the node. Static libraries, most of them of Triton's
# profiler, are not needed at run time.
FROM base AS torch
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY images/torch/requirements.lock /opt/adainf/torch.lock
RUN pip install --compile --require-hashes --requirement /opt/adainf/torch.lock \
    && find /opt/adainf -name '*.a' -delete

# torch.compile (`pretrain.compile`) needs a C++ compiler on CPUs, and a C compiler on GPUs for the launchers of Triton kernels.
FROM torch AS train
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY images/train/requirements.lock /opt/adainf/
RUN pip install --compile --require-hashes --requirement /opt/adainf/requirements.lock
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532

FROM torch AS generate
COPY images/generate/requirements.lock /opt/adainf/
RUN pip install --compile --require-hashes --requirement /opt/adainf/requirements.lock
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532

# torch without CUDA is not on PyPI: TORCH_INDEX is the URL of PyTorch's index of CPU wheels. Without it pip installs torch with
# CUDA from its configured index, which works as well but is four times as large.
FROM base AS train-cpu
ARG TORCH_INDEX=""
COPY images/train-cpu/torch.txt images/train-cpu/requirements.lock /opt/adainf/
RUN pip install --compile --no-deps --require-hashes --requirement /opt/adainf/requirements.lock \
    && pip install --compile ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement /opt/adainf/torch.txt
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532
