"""What the machine has: the environment, processors, GPUs, memory, disk, the name of the first pod."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from adainf.doctor.finding import Finding, failed
from adainf.errors import BadInput
from adainf.kubernetes.launcher.env import GANGS, SERVICE, Pod

NAME_PATIENCE_S = 10.0
SHARED_BYTES = 2**30
"""For NCCL between the GPUs of a node; a container has 64 MiB unless it mounts more."""
_GIB = 2**30


def environment() -> Iterator[Finding]:
    """The variables that the launcher reads, and in a gang the name of its first pod."""
    nodes = os.environ.get("ADAINF_NNODES", "1")
    try:
        pod = Pod.here(GANGS[0] if nodes != "1" or "ADAINF_NPROC" in os.environ else "")
    except BadInput as error:
        yield failed("environment", error)
        return
    yield Finding("environment", "ok", f"node {pod.index} of {pod.nodes}")
    if pod.nodes > 1:
        yield _name(pod)


def _name(pod: Pod) -> Finding:
    deadline = time.monotonic() + NAME_PATIENCE_S
    while True:
        try:
            address = socket.getaddrinfo(pod.master, pod.master_port, type=socket.SOCK_STREAM)[0][4][0]
            return Finding("name of the first pod", "ok", f"{pod.master} is {address}")
        except OSError as error:
            if time.monotonic() > deadline:  # no failure: that pod may still wait for its node
                mend = f"if it stays so, look at pod {pod.job}-0, Service {SERVICE} and the pod's subdomain"
                return Finding("name of the first pod", "warn", f"{pod.master}: {error.strerror}", mend)
        time.sleep(1)


def processors() -> Finding:
    """The processors that this process may use."""
    count = len(os.sched_getaffinity(0))
    return Finding("processors", "ok", f"{count} of {os.cpu_count()}")


def graphics() -> Iterator[Finding]:
    """The driver, and what torch makes of it."""
    driver = _driver()
    wanted = os.environ.get("ADAINF_NPROC") == "auto"
    ask = "ask for nvidia.com/gpu in the pod's limits"
    if driver is None:
        yield Finding("GPU driver", "fail" if wanted else "ok", "none", ask if wanted else "")
    else:
        yield Finding("GPU driver", "ok", driver)
    if find_spec("torch") is None:
        yield Finding("torch", "fail" if wanted else "ok", "not installed", "use the image `train`" if wanted else "")
        return
    import torch

    about = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    count = torch.cuda.device_count()
    if count:
        names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        yield Finding("torch", "ok", f"{about}, NCCL {nccl}, {count} x {names}")
    elif driver is None:
        yield Finding("torch", "ok", f"{about}, no GPU")
    else:
        mend = f"{ask}, or take an image whose CUDA is no newer than the driver's"
        yield Finding("torch", "fail" if wanted else "warn", f"{about}, sees no GPU", mend)


def _driver() -> str | None:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].removeprefix("NVRM version: ")
    except (OSError, IndexError):
        return None


def shared_memory() -> Finding:
    """/dev/shm, through which the processes of a node speak."""
    try:
        size_bytes = shutil.disk_usage("/dev/shm").total
    except OSError:
        size_bytes = 0
    small = size_bytes < SHARED_BYTES
    mend = "mount an emptyDir with medium: Memory and a sizeLimit of 1Gi or more" if small else ""
    return Finding("/dev/shm", "warn" if small else "ok", f"{size_bytes / _GIB:.2f} GiB", mend)


def temporary_files() -> Finding:
    """Where temporary files go, and what room is there."""
    try:
        with tempfile.NamedTemporaryFile() as probe:
            probe.write(b"adainf")
            probe.flush()
            free_bytes = shutil.disk_usage(Path(probe.name).parent).free
    except OSError as error:
        return Finding("temporary files", "fail", str(error.strerror), "mount an emptyDir at /tmp, or set TMPDIR")
    found = f"{tempfile.gettempdir()}, {free_bytes / _GIB:.1f} GiB free"
    if free_bytes < _GIB:
        return Finding("temporary files", "warn", found, "free some space, or raise the emptyDir's sizeLimit")
    return Finding("temporary files", "ok", found)
