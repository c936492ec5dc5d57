"""Inter-process locks on one node, released by the kernel when the process that holds them is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCKED = {errno.EACCES, errno.EAGAIN}
_POLL_SECONDS = 0.005


class ByteLocks:
    """Many locks in one file: lock n is a lock on byte n, held by the `ByteLocks` that acquired it.

    Open file description locks (Linux): POSIX record locks would be lost when any part of the process closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()
        self._mutex = threading.Lock()

    def try_acquire(self, number: int) -> bool:
        """Acquire the lock without blocking; whether it was free."""
        with self._mutex:
            if number in self._held:
                return False
            try:
                self._set(number, fcntl.F_WRLCK)
            except OSError as error:
                if error.errno not in _LOCKED:
                    raise
                return False
            self._held.add(number)
            return True

    def release(self, number: int) -> None:
        with self._mutex:
            self._set(number, fcntl.F_UNLCK)
            self._held.discard(number)

    @contextmanager
    def any_of(self, count: int) -> Iterator[None]:
        """Hold one of the locks 0 … count - 1: a semaphore that admits `count` threads of the node."""
        while (number := next((n for n in range(count) if self.try_acquire(n)), None)) is None:
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self.release(number)

    def close(self) -> None:
        os.close(self._fd)

    def _set(self, number: int, kind: int) -> None:
        # struct flock: type, whence, start, length, pid
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, number, 1, 0))
