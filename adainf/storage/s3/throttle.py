"""Flow control of reads: an AIMD concurrency limiter and a retry budget, shared by all threads of a process. No I/O."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def backoff(failures: int) -> None:
    """Sleep before the next attempt: exponential backoff with full jitter, so that many readers do not retry at once."""
    time.sleep(random.uniform(0, min(20.0, 0.1 * 2**failures)))


class ConcurrencyLimiter:
    """Limits concurrent reads by additive increase and multiplicative decrease (AIMD).

    At most `limit` reads run at once. A throttled read halves the limit, down to 1, at most once per epoch: a read that started
    before the last decrease carries no new information. Every `max_reads` successes raise the limit by 1, up to `max_reads`.
    """

    def __init__(self, max_reads: int) -> None:
        if max_reads < 1:
            raise ValueError(f"max_reads is {max_reads}: it must be 1 or more")
        self.limit = max_reads
        self._max_reads = max_reads
        self._running = 0
        self._epoch = 0
        self._successes_to_increase = max_reads
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Wait for a free slot and hold it within the block. Yields the epoch, which `on_throttled` takes."""
        with self._changed:
            self._changed.wait_for(lambda: self._running < self.limit)
            self._running += 1
            epoch = self._epoch
        try:
            yield epoch
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def on_success(self) -> None:
        """A read has finished."""
        with self._changed:
            self._successes_to_increase -= 1
            if self._successes_to_increase == 0:
                self._successes_to_increase = self._max_reads
                self.limit = min(self.limit + 1, self._max_reads)
                self._changed.notify_all()

    def on_throttled(self, epoch: int) -> None:
        """The store throttled a read that started in `epoch`."""
        with self._changed:
            if epoch == self._epoch:
                self._epoch += 1
                self.limit = max(1, self.limit // 2)
                self._successes_to_increase = self._max_reads


class RetryBudget:
    """A retry budget: a bucket of `size` tokens. A failed read takes one, a successful read returns one.

    A store that fails every fourth read never exhausts it. A store that fails all reads is given up after `size` failures of
    all threads together, not after every attempt of every thread for every object.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"the retry budget is {size}: it must be 1 or more")
        self._size = self._tokens = size
        self._failed = self._finished = 0  # since the bucket was last full
        self._lock = threading.Lock()

    def on_success(self) -> None:
        """A read has finished."""
        with self._lock:
            self._finished += 1
            self._tokens += 1
            if self._tokens >= self._size:
                self._tokens, self._failed, self._finished = self._size, 0, 0

    def on_failure(self) -> bool:
        """A read has failed. False if the budget is exhausted: do not retry."""
        with self._lock:
            self._failed += 1
            self._finished += 1
            exhausted = self._tokens == 0
            self._tokens -= not exhausted
            return not exhausted

    @property
    def summary(self) -> str:
        """How many reads have failed since the bucket was last full, for messages."""
        with self._lock:
            return f"{self._failed} of {self._finished} reads failed"
