"""Fault injection for the API: error responses, delays, broken watches, and a hook after each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cluster.access import ADMIN, Call
from tests.cluster.statuses import Refusal

Hook = Callable[[Call], object]


@dataclass
class Faults:
    """Faults for all users except the administrator, whom the tests themselves use."""

    delay_s: float = 0
    after: Hook = lambda call: None
    """Called after a call is executed and before its response is sent."""
    _next: list[tuple[int, Callable[[Call], bool], int | None]] = field(default_factory=list)
    _watches: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, code: int, times: int = 1, when: Hook = lambda call: True, retry_after_s: int | None = None) -> None:
        """Respond with `code` to the next `times` calls for which `when` holds."""
        self._next += [(code, lambda call: bool(when(call)), retry_after_s)] * times

    def drop_watches(self) -> None:
        """Close the connections of all open watches."""
        self._watches += 1

    def watch(self) -> Callable[[], bool]:
        """For a new watch: a function that returns whether it has been dropped."""
        mine = self._watches
        return lambda: self._watches != mine

    def before(self, call: Call) -> None:
        """Raises `Refusal` if a fault is due."""
        if call.user == ADMIN:
            return
        time.sleep(self.delay_s)
        with self._lock:
            due = next((each for each in self._next if each[1](call)), None)
            if due:
                self._next.remove(due)
                raise Refusal(due[0], "a fault of the test", retry_after_s=due[2])
