"""A limit on the bytes that concurrent requests hold in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Thread-safe. Requests are admitted in their order, so that small ones do not delay a large one forever."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes, self.used_bytes, self.peak_bytes = limit_bytes, 0, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def take(self, size_bytes: int) -> Iterator[None]:
        """Wait until this number of bytes is available, and hold it. More than the limit waits until nothing else is held."""
        size = min(size_bytes, self._limit_bytes)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.used_bytes + size <= self._limit_bytes)
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        try:
            yield
        finally:
            with self._changed:
                self.used_bytes -= size
                self._changed.notify_all()
