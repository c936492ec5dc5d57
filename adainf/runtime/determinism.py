"""Determinism: thread counts, seeds and deterministic kernels."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from adainf.runtime.environment import check_libraries

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def prepare(cpu_threads: int | None) -> None:
    """Pin what can change a result outside the recipe: the thread count of reductions, the precision of matrix products, and
    nondeterministic kernels. Raises `BadInput` for settings in the environment that change a result and cannot be pinned."""
    check_libraries()
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    if torch.get_float32_matmul_precision() != "highest":  # TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which NVIDIA's images set
        torch.set_float32_matmul_precision("highest")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # other sizes select other kernels
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # fills every new tensor otherwise
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        # The fused attention kernels accumulate gradients in a nondeterministic order.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory that a step has freed. By default it maps each block over 32 MB again, and the kernel then
    faults it in page by page."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from other C libraries
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Modules built in this block get the initial weights of `seed`; the caller's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to CUDA through pinned memory, as a pageable copy waits for the work queued on the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@lru_cache(maxsize=1024)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A cached constant tensor, copied to its device once. Callers must not modify it."""
    return torch.tensor(values, dtype=dtype, device=device)


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process in GiB: of the device, or of the host without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
