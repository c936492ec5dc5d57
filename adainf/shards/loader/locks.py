"""Locks among the processes of a node that a killed process lets go of by itself."""

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

_TAKEN = {errno.EACCES, errno.EAGAIN}
_POLL_SECONDS = 0.005


class ByteLocks:
    """Many locks in one file: lock n is that on byte n, held by the one `ByteLocks` (and thread) that took it.

    Locks of the open file description (Linux): those of the process would be lost when any part of it closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()
        self._mutex = threading.Lock()

    def take(self, number: int) -> bool:
        """Whether the lock could be taken at once."""
        with self._mutex:
            if number in self._held:
                return False
            try:
                self._set(number, fcntl.F_WRLCK)
            except OSError as error:
                if error.errno not in _TAKEN:
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
        """Hold one of the locks 0 … count - 1: at most `count` threads of the node are in this block."""
        while (number := next((n for n in range(count) if self.take(n)), None)) is None:
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
