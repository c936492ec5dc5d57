"""Being asked to stop, as a pod is: the stage below hears of it, and has the pod's grace period to save."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from adainf.kubernetes.launcher import tree


class Stop:
    """Whether this process was asked to stop; it passes that on once, as a second signal would cut the saving short."""

    def __init__(self) -> None:
        self.received = self.passed_on = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def pass_on(self) -> bool:
        """Tell the processes that this one has started; False where there are none yet."""
        for pid in tree.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                self.passed_on = True
        return self.passed_on

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self.passed_on:
            self.pass_on()
