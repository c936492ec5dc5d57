"""Signals: a loop that can save finishes its step first; everything else stops at once.

SIGTERM (a cluster reclaims the node), SIGHUP (a terminal closes) and Ctrl-C end the process with exit code 75. In a loop that
saves, only the first signal is deferred. The second one stops the process once no upload is in flight; only the work since the
last checkpoint is lost. A second Ctrl-C aborts at once, as kill -9 would: all writes are atomic, so the run can be resumed.

SIGUSR1 and SIGUSR2 (Slurm's warning before the end of a job) request a checkpoint, and the work continues.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from enum import IntEnum
from types import FrameType

from adainf.errors import INTERRUPTED, Stopped

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SAVE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_ONE_KEY_S = 0.5
"""SIGINTs in this time are one Ctrl-C: the terminal sends it to every process, and a launcher passes its own on."""


class Request(IntEnum):
    """What the signals since the last step ask of a loop that saves. The highest one of all processes counts."""

    NONE = 0
    SAVE = 1
    STOP = 2


class Requests:
    """The requests of the signals that this process has received."""

    def __init__(self) -> None:
        self.received = False
        """Whether the process was asked to stop."""
        self.deferred = False
        self.saves = False
        """Whether the loop that runs has checkpoints."""
        self._save = False
        self._interrupted_at = -_ONE_KEY_S

    def take(self) -> Request:
        """The current request. A request to save is returned once."""
        save, self._save = self._save, False
        return Request.STOP if self.received else Request.SAVE if save else Request.NONE

    def handle_stop(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if number == signal.SIGINT:
            before, self._interrupted_at = self._interrupted_at, time.monotonic()
            if again and self._interrupted_at - before < _ONE_KEY_S:
                return
            if again:
                _abort()
        if again or not self.deferred:
            raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command again to resume")

    def handle_save(self, number: int, frame: FrameType | None) -> None:
        self._save = self.saves
        if not self.saves:  # by a system call: the signal may have interrupted a print
            text = f"adainf: {signal.Signals(number).name}: there is no checkpoint to save now; the work continues\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())


def _abort() -> None:
    """End the process without cleaning up, by system calls: the signal may have interrupted anything."""
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"adainf: aborted by a second Ctrl-C; run the same command again to resume\n")
    os._exit(INTERRUPTED)


_requests = Requests()


def check() -> None:
    """Raise `Stopped` if a signal arrived and its exception was lost: Python only prints exceptions raised in a finalizer."""
    if _requests.received and not _requests.deferred:
        raise Stopped("stopped by a signal; run the same command again to resume")


def install() -> None:
    """Handle the signals, except those that the parent ignores, as nohup does. Only the command line calls this."""
    _requests.received = False
    for numbers, handler in ((_STOP_SIGNALS, _requests.handle_stop), (_SAVE_SIGNALS, _requests.handle_save)):
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextlib.contextmanager
def deferred(saves: bool = True) -> Iterator[Requests]:
    """Within this block signals only set a request: the loop takes it after each step. A second stop is not deferred.

    `saves`: the loop has checkpoints.
    """
    _requests.take()
    _requests.deferred, _requests.saves = True, saves
    try:
        yield _requests
    finally:
        _requests.deferred = _requests.saves = False
