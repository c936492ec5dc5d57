"""Time per part of a training step: data, augmentation, model; the throughput in images/s derives from it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by name since the last `read`. On CUDA, where calls are asynchronous, measured by events on the stream."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._since = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        if self._cuda:
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            yield
            after.record()
            self._events.append((name, before, after))
        else:
            yield
            self._seconds[name] += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Seconds per name, and `all` for the elapsed time; resets the timer."""
        for name, before, after in self._events:
            after.synchronize()
            self._seconds[name] += before.elapsed_time(after) / 1000
        now = time.perf_counter()
        seconds = {**self._seconds, "all": now - self._since}
        self._events.clear()
        self._seconds.clear()
        self._since = now
        return seconds
