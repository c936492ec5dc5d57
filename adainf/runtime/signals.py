"""Being asked to stop: a loop that can save finishes its step first, anything else stops where it is.

A SIGTERM (a cluster that wants its node back) or a Ctrl-C ends with exit code 75. Only the first one is
held back while a loop saves; the second stops the process as soon as no upload is under way, which loses nothing but the work
since the last save.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from adainf.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.received = False
        self.deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or not self.deferred:
            raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command to go on")


_request = StopRequest()


def check() -> None:
    """Raise `Stopped` where a signal came and its exception was lost: Python only prints one that is raised in a finaliser."""
    if _request.received and not _request.deferred:
        raise Stopped("stopped by a signal; run the same command to go on")


def install() -> None:
    """Take over SIGTERM and SIGINT; called once by the command line, never by the library."""
    _request.received = False
    for number in _SIGNALS:
        signal.signal(number, _request.handle)


@contextlib.contextmanager
def deferred() -> Iterator[StopRequest]:
    """Within this block a first signal only sets `received`: the loop looks at it after each step, saves and raises."""
    _request.deferred = True
    try:
        yield _request
    finally:
        _request.deferred = False
