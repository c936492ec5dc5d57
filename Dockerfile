# All images; images/matrix.yaml lists them, images/README.md tells sizes and how to build, pin and check them. `make images`
#
# Layers from what changes least to what changes most: system, torch, the other wheels, the code. A node that has `train` pulls
# little more for `generate`.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE} AS base
# Debian's security updates are wanted, so versions are not pinned; pin BASE by digest for the rest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && groupadd --gid 65532 adainf \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin adainf \
    && python3 -m venv --without-pip /opt/adainf
# Any uid works, with or without an entry in /etc/passwd: what is written goes to /tmp, bytecode is compiled here.
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

# Without numpy and Pillow, which only commands on images use, the client for asyncio, and what botocore knows of other services.
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

# torch's wheels bring CUDA themselves, so the base need not; the driver is the node's. Static libraries, most of them of Triton's
# profiler, are for those who link.
FROM base AS torch
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY images/torch/requirements.lock /opt/adainf/torch.lock
RUN pip install --compile --require-hashes --requirement /opt/adainf/torch.lock \
    && find /opt/adainf -name '*.a' -delete

# torch.compile (`pretrain.compile`) takes a C++ compiler on CPUs, and a C compiler on GPUs for what launches Triton's kernels.
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

# torch without CUDA is not on PyPI: TORCH_INDEX is the address of PyTorch's index of CPU wheels. Without it pip takes torch from
# where it is configured to, and what that needs: with CUDA four times as large, and as good.
FROM base AS train-cpu
ARG TORCH_INDEX=""
COPY images/train-cpu/torch.txt images/train-cpu/requirements.lock /opt/adainf/
RUN pip install --compile --no-deps --require-hashes --requirement /opt/adainf/requirements.lock \
    && pip install --compile ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement /opt/adainf/torch.txt
COPY --from=wheel /wheel /wheel
RUN pip install --compile --no-deps /wheel/*.whl
USER 65532:65532
