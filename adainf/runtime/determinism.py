"""One place that makes numbers repeatable: threads, seeds and deterministic kernels."""

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

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def prepare(cpu_threads: int | None) -> None:
    """Fix what can change a result without changing the recipe: the threads of sums, and kernels that race."""
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # else it writes every tensor twice
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        # Each of the fused kernels of attention sums gradients in an order of its own every time.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what a step has freed for the next one: by itself it maps blocks of 32 MB and more anew each time,
    and the kernel fills them page by page."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # no such call in other C libraries
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Networks built in this block get the initial weights of `seed`; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; to CUDA through pinned memory, as any other copy waits for all that the device has still to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@lru_cache(maxsize=1024)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor that nobody changes, copied to its device once."""
    return torch.tensor(values, dtype=dtype, device=device)


def memory_gib(device: torch.device) -> float:
    """The most that this process has held: of the device's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
