"""One place that makes numbers repeatable: threads, seeds and deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def prepare(cpu_threads: int | None) -> None:
    """Fix what can change a result without changing the recipe: the threads of sums, and kernels that race."""
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # else it writes every tensor twice
    torch.backends.cudnn.benchmark = False


@contextmanager
def fresh_weights(seed: int) -> Iterator[None]:
    """Networks built in this block get the initial weights of `seed`; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
