"""Threads that fill shards of several splits in the order in which they are wanted."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple, Protocol

from adainf.shards.loader.cache import FETCHES_AT_ONCE, Entry
from adainf.shards.loader.locks import ByteLocks

POLL_SECONDS = 0.005
"""How often to look whether another process has filled a shard: files tell nobody."""


END_SECONDS = 5.0


class Fillable(Protocol):
    """What a split gives to be filled; see `WholeSplit`."""

    entry: Entry

    def is_ready(self, number: int) -> bool: ...

    def fill(self, number: int) -> None: ...


class Job(NamedTuple):
    """One shard of one of the splits."""

    split: int
    shard: int


class Filler:
    """Fills what is wanted, each shard once on the node: whoever holds its lock fills it, and a killed process loses its locks.

    An error of `fill` is raised by every `wait` from then on.
    """

    def __init__(self, splits: list[Fillable], fetches: ByteLocks) -> None:
        self._splits, self._fetches = splits, fetches
        self._changed = threading.Condition()
        self._wanted: deque[Job] = deque()
        self._urgent: list[Job] = []
        self._error: Exception | None = None
        self._closed = False
        count = min(FETCHES_AT_ONCE, max(4, os.cpu_count() or 1))
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"fill-{n}") for n in range(count)]
        self._started = False

    def want(self, jobs: Iterable[Job]) -> None:
        """Fill these, in this order, in place of what was wanted before; returns at once."""
        with self._changed:
            self._wanted = deque(job for job in jobs if not self._is_ready(job))
            if self._wanted and not self._started:
                self._start()
            self._changed.notify_all()

    def wait(self, jobs: list[Job]) -> None:
        """Return when these are filled; they come before all that is wanted. Raises what filling raised."""
        with self._changed:
            self._urgent = jobs
            if jobs and not self._started:
                self._start()
            self._changed.notify_all()
            while True:
                if self._error:
                    raise self._error
                if self._closed:
                    raise Closed
                if all(map(self._is_ready, jobs)):
                    return
                self._changed.wait(POLL_SECONDS)

    def stop(self) -> None:
        """Fill no more, and raise `Closed` in whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def ended(self) -> bool:
        """Whether all threads end within some seconds; one that hangs on the network must not keep a process that was asked to
        stop."""
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads if self._started else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        self._started = True
        for thread in self._threads:
            thread.start()

    def _is_ready(self, job: Job) -> bool:
        return self._splits[job.split].is_ready(job.shard)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            fills = self._splits[job.split].entry.fills
            try:
                if not self._is_ready(job):  # filled by another process before we had its lock
                    with self._fetches.any_of(FETCHES_AT_ONCE):
                        self._splits[job.split].fill(job.shard)
            except Exception as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            finally:
                fills.release(job.shard)
            with self._changed:
                self._changed.notify_all()

    def _next(self) -> Job | None:
        """The first job that is not filled and that nobody fills, its lock taken; None when there is no more to do."""
        with self._changed:
            while not (self._closed or self._error):
                while self._wanted and self._is_ready(self._wanted[0]):
                    self._wanted.popleft()
                for job in chain(self._urgent, self._wanted):
                    if not self._is_ready(job) and self._splits[job.split].entry.fills.take(job.shard):
                        return job
                # Others fill what is left: wait for them, who may yet be killed.
                self._changed.wait(POLL_SECONDS if self._wanted or self._urgent else None)
        return None


class Closed(Exception):
    """The stream was closed while somebody waited for it."""
