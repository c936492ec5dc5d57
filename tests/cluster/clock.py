"""Time of the cluster: its seconds can be shorter than ours, and whoever waits for a moment is woken then."""

from __future__ import annotations

import time
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta


def timestamp(in_s: float = 0) -> str:
    """Our time, now or soon, as Kubernetes writes it: whole seconds."""
    return (datetime.now(UTC) + timedelta(seconds=in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Clock:
    """Timers by key. `speed`: seconds of the cluster in one of ours."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._begun: dict[Hashable, float] = {}
        self._next_s = float("inf")

    def start(self, key: Hashable) -> None:
        """Begins the timer `key`, unless it runs already."""
        self._begun.setdefault(key, time.monotonic())

    def stop(self, key: Hashable) -> None:
        self._begun.pop(key, None)

    def due(self, key: Hashable, after_s: float) -> bool:
        """Whether `key` has run for so many seconds of the cluster; where not, `wait_s` ends by then."""
        self.start(key)
        left_s = after_s / self.speed - (time.monotonic() - self._begun[key])
        if left_s > 0:
            self._next_s = min(self._next_s, left_s)
        return left_s <= 0

    def wait_s(self) -> float:
        """Our seconds until the nearest moment that was asked for since the last call."""
        nearest_s, self._next_s = self._next_s, float("inf")
        return nearest_s
