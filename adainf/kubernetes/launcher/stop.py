"""Forwards signals to the stage: SIGTERM, upon which it saves within the pod's grace period, and SIGUSR1 and SIGUSR2, which
request a checkpoint. SIGINT and SIGHUP are forwarded as SIGTERM: the stage is in a session of its own and does not get them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from adainf.kubernetes.launcher import tree

_STOP, _SAVE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP), (signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def blocked() -> Iterator[None]:
    """Threads started in this block get no signals: the main thread, which waits for the stage, would not wake up for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, *_SAVE})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stop:
    """Whether this process was asked to stop. Forwards it once: a second signal would interrupt the save."""

    def __init__(self) -> None:
        self.received = self.passed_on = False
        for number in _STOP:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup ignores SIGHUP
                signal.signal(number, self._handle)
        for number in _SAVE:
            signal.signal(number, self._forward)

    def pass_on(self) -> bool:
        """Send SIGTERM to the child processes. Returns False if there are none yet."""
        for pid in tree.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                self.passed_on = True
        return self.passed_on

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self.passed_on:
            self.pass_on()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        for pid in tree.children():
            if tree.handles(pid, number):  # a process that is starting would die of it
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
