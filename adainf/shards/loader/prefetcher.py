"""Threads that prefetch the shards of several splits into the node cache, in the order in which they are needed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple, Protocol

from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.loader.cache import Entry
from adainf.shards.loader.locks import ByteLocks

POLL_SECONDS = 0.005
"""How often to check whether another process has fetched a shard: there is no notification across processes."""
JOIN_SECONDS = 5.0


class Prefetchable(Protocol):
    """A split whose shards can be prefetched; see `InMemorySplit`."""

    entry: Entry

    def is_ready(self, number: int) -> bool: ...

    def prefetch(self, number: int) -> None: ...


class FetchTask(NamedTuple):
    """One shard of one of the splits."""

    split: int
    shard: int


class Prefetcher:
    """Fetches each scheduled shard once per node: by the process that holds its lock, which the kernel releases on a kill.

    After an error of a split's `prefetch`, every `wait` raises it.
    """

    def __init__(self, splits: list[Prefetchable], fetches: ByteLocks) -> None:
        self._splits, self._fetches = splits, fetches
        self._changed = threading.Condition()
        self._scheduled: deque[FetchTask] = deque()
        self._urgent: list[FetchTask] = []
        self._error: Exception | None = None
        self._closed = False
        count = min(MAX_CONCURRENT_FETCHES, max(4, os.cpu_count() or 1))
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"prefetch-{n}") for n in range(count)]
        self._started = False

    def add(self, split: Prefetchable) -> None:
        """Another split, with the next number."""
        self._splits.append(split)

    def schedule(self, tasks: Iterable[FetchTask]) -> None:
        """Fetch these in this order, instead of what was scheduled before; returns at once."""
        with self._changed:
            self._scheduled = deque(task for task in tasks if not self._is_ready(task))
            if self._scheduled and not self._started:
                self._start()
            self._changed.notify_all()

    def wait(self, tasks: list[FetchTask]) -> None:
        """Block until these are ready; they take precedence over the scheduled ones. Raises the error of a failed fetch."""
        with self._changed:
            self._urgent = tasks
            if tasks and not self._started:
                self._start()
            self._changed.notify_all()
            while True:
                if self._error:
                    raise self._error
                if self._closed:
                    raise Closed
                if all(map(self._is_ready, tasks)):
                    self._urgent = []
                    return
                self._changed.wait(POLL_SECONDS)

    def stop(self) -> None:
        """Fetch no further shards, and raise `Closed` in every `wait`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> bool:
        """Whether all threads end within `JOIN_SECONDS`: one that hangs on the network must not keep a process from exiting."""
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads if self._started else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        self._started = True
        for thread in self._threads:
            thread.start()

    def _is_ready(self, task: FetchTask) -> bool:
        return self._splits[task.split].is_ready(task.shard)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            locks = self._splits[task.split].entry.shard_locks
            try:
                if not self._is_ready(task):  # another process may have fetched it before the lock was acquired
                    with self._fetches.any_of(MAX_CONCURRENT_FETCHES):
                        self._splits[task.split].prefetch(task.shard)
            except Exception as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            finally:
                locks.release(task.shard)
            with self._changed:
                self._changed.notify_all()

    def _next(self) -> FetchTask | None:
        """The first task that is neither ready nor in progress, with its lock acquired; None when the prefetcher stops."""
        with self._changed:
            while not (self._closed or self._error):
                while self._scheduled and self._is_ready(self._scheduled[0]):
                    self._scheduled.popleft()
                missing = False
                for task in chain(self._urgent, self._scheduled):
                    if not self._is_ready(task):
                        missing = True
                        if self._splits[task.split].entry.shard_locks.try_acquire(task.shard):
                            return task
                # Others fetch what is missing. They may be killed, so poll; if nothing is missing, sleep.
                self._changed.wait(POLL_SECONDS if missing else None)
        return None


class Closed(Exception):
    """The stream was closed during a `wait`."""
