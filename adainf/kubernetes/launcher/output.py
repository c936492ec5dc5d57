"""Passes the output of this process and its descendants through, and keeps the last lines."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque

LINES = 20
_LINE_BYTES = 400
_READ_BYTES = 65536
_JOIN_TIMEOUT_S = 5.0


class Output:
    """Redirects file descriptors 1 and 2, which child processes inherit."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=LINES)
        self._outside = {fd: os.dup(fd) for fd in (1, 2)}
        self._threads = [self._follow(fd) for fd in (1, 2)]

    def close(self) -> list[str]:
        """Restore the descriptors after all output has passed. Returns the last lines."""
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, outside in self._outside.items():
            os.dup2(outside, fd)  # closes the last write end, so the reader reaches the end of the pipe
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
        return [line.decode(errors="replace").strip() for line in self._lines if line.strip()]

    def _follow(self, fd: int) -> threading.Thread:
        reading, writing = os.pipe()
        os.dup2(writing, fd)
        os.close(writing)
        thread = threading.Thread(target=self._pass_on, args=(reading, self._outside[fd]), daemon=True)
        thread.start()
        return thread

    def _pass_on(self, reading: int, outside: int) -> None:
        unfinished = b""
        while data := os.read(reading, _READ_BYTES):
            _write(outside, data)
            *complete, unfinished = (unfinished + data).split(b"\n")
            self._lines.extend(line[:_LINE_BYTES] for line in complete)
            unfinished = unfinished[:_LINE_BYTES]
        self._lines.append(unfinished)
        os.close(reading)


def _write(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:  # the reader of our output is gone; the stage continues
        return
