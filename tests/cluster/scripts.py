"""Scripted pods: a test sets how long they run and how they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.cluster.clock import Clock


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    code: int
    message: str = ""
    reason: str = ""
    """For example "OOMKilled". Default: "Completed" or "Error"."""


@dataclass(frozen=True)
class Script:
    """A container that runs for `after_s` seconds of the cluster and then ends with `exit`."""

    exit: Exit = Exit(0)
    after_s: float = 0
    on_sigterm: Exit | None = Exit(143)
    """None: no handler for SIGTERM, so it is killed after the grace period."""
    sigterm_s: float = 0
    """Seconds from SIGTERM to the end."""
    log: str = ""
    then: Callable[[], object] | None = None
    """Called when it ends without a signal, before its end is visible."""


class ScriptedRun:
    """One execution of a script."""

    def __init__(self, script: Script, uid: str, clock: Clock) -> None:
        self._script, self._uid, self._clock = script, uid, clock
        self._exit: Exit | None = None
        self._asked = False
        clock.start((uid, "script"))

    def poll(self) -> Exit | None:
        script = self._script
        if (
            self._exit is None
            and self._asked
            and script.on_sigterm
            and self._clock.due((self._uid, "sigterm"), script.sigterm_s)
        ):
            self._exit = script.on_sigterm
        elif self._exit is None and not self._asked and self._clock.due((self._uid, "script"), script.after_s):
            if script.then:
                script.then()
            self._exit = script.exit
        return self._exit

    def end(self, how: Exit) -> None:
        """End it now."""
        self._exit = self._exit or how

    def terminate(self) -> None:
        self._asked = True

    def kill(self) -> None:
        self.end(Exit(137))

    def log(self) -> str:
        return self._script.log
