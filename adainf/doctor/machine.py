"""Checks of the machine: environment variables, DNS name of the first pod, CPUs, GPUs, shared memory, temporary disk."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from adainf.doctor.check import Check, failed
from adainf.errors import BadInput
from adainf.kubernetes.launcher.env import GANGS, Pod

DNS_TIMEOUT_S = 10.0
MIN_SHARED_MEMORY_BYTES = 2**30
"""NCCL uses it between the GPUs of a node; a container has 64 MiB by default."""
_GIB = 2**30


def environment() -> Iterator[Check]:
    """The environment variables that the launcher reads and, in a gang, the DNS name of its first pod."""
    nodes = os.environ.get("ADAINF_NNODES", "1")
    try:
        pod = Pod.here(GANGS[0] if nodes != "1" or "ADAINF_NPROC" in os.environ else "")
    except BadInput as error:
        yield failed("environment", error)
        return
    yield Check("environment", "ok", f"node {pod.index} of {pod.nodes}")
    if pod.nodes > 1:
        yield _dns_name(pod)


def _dns_name(pod: Pod) -> Check:
    deadline = time.monotonic() + DNS_TIMEOUT_S
    while True:
        try:
            address = socket.getaddrinfo(pod.master, pod.master_port, type=socket.SOCK_STREAM)[0][4][0]
            return Check("DNS name of the first pod", "ok", f"{pod.master} resolves to {address}")
        except OSError as error:
            if time.monotonic() > deadline:  # a warning only: that pod may not be scheduled yet
                fix = f"if this persists, check pod {pod.job}-0, Service {pod.service} and the pod's subdomain"
                return Check("DNS name of the first pod", "warn", f"{pod.master}: {error.strerror}", fix)
        time.sleep(1)


def cpus() -> Check:
    """The CPUs that this process may use."""
    count = len(os.sched_getaffinity(0))
    return Check("CPUs", "ok", f"{count} of {os.cpu_count()}")


def gpus() -> Iterator[Check]:
    """The GPU driver, and the GPUs that torch detects."""
    driver = _driver()
    required = os.environ.get("ADAINF_NPROC") == "auto"
    request_gpu = "request nvidia.com/gpu in the pod's limits"
    if driver is None:
        yield Check("GPU driver", "fail" if required else "ok", "none", request_gpu if required else "")
    else:
        yield Check("GPU driver", "ok", driver)
    if find_spec("torch") is None:
        yield Check("torch", "fail" if required else "ok", "not installed", "use the image `train`" if required else "")
        return
    import torch

    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    count = torch.cuda.device_count()
    if count:
        names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        yield Check("torch", "ok", f"{versions}, NCCL {nccl}, {count} x {names}")
    elif driver is None:
        yield Check("torch", "ok", f"{versions}, no GPU")
    else:
        fix = f"{request_gpu}, or use an image whose CUDA version the driver supports"
        yield Check("torch", "fail" if required else "warn", f"{versions}, detects no GPU", fix)


def _driver() -> str | None:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].removeprefix("NVRM version: ")
    except (OSError, IndexError):
        return None


def shared_memory() -> Check:
    """/dev/shm, which the processes of a node use to communicate."""
    try:
        size_bytes = shutil.disk_usage("/dev/shm").total
    except OSError:
        size_bytes = 0
    small = size_bytes < MIN_SHARED_MEMORY_BYTES
    fix = "mount an emptyDir with medium: Memory and a sizeLimit of 1Gi or more" if small else ""
    return Check("/dev/shm", "warn" if small else "ok", f"{size_bytes / _GIB:.2f} GiB", fix)


def temporary_files() -> Check:
    """The folder of temporary files, and its free space."""
    try:
        with tempfile.NamedTemporaryFile() as probe:
            probe.write(b"adainf")
            probe.flush()
            free_bytes = shutil.disk_usage(Path(probe.name).parent).free
    except OSError as error:
        return Check("temporary files", "fail", str(error.strerror), "mount an emptyDir at /tmp, or set TMPDIR")
    detail = f"{tempfile.gettempdir()}, {free_bytes / _GIB:.1f} GiB free"
    if free_bytes < _GIB:
        return Check("temporary files", "warn", detail, "free some space, or raise the emptyDir's sizeLimit")
    return Check("temporary files", "ok", detail)
