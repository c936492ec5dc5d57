"""Stop requests: a loop that can save finishes its step first; everything else stops at once.

SIGTERM (a cluster reclaims the node), SIGHUP (a terminal closes) and Ctrl-C end the process with exit code 75. In a loop that
saves, only the first signal is deferred. The second one stops the process once no upload is in flight; only the work since the
last checkpoint is lost.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from adainf.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.received = False
        self.deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or not self.deferred:
            raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command again to resume")


_request = StopRequest()


def check() -> None:
    """Raise `Stopped` if a signal arrived and its exception was lost: Python only prints exceptions raised in a finalizer."""
    if _request.received and not _request.deferred:
        raise Stopped("stopped by a signal; run the same command again to resume")


def install() -> None:
    """Handle the signals, except those that the parent ignores, as nohup does. Only the command line calls this."""
    _request.received = False
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _request.handle)


@contextlib.contextmanager
def deferred() -> Iterator[StopRequest]:
    """Within this block the first signal only sets `received`: the loop checks it after each step, saves and raises."""
    _request.deferred = True
    try:
        yield _request
    finally:
        _request.deferred = False
