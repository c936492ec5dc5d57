"""The cluster's clock, which can run faster than real time, and its timers."""

from __future__ import annotations

import time
from collections.abc import Hashable
from datetime import UTC, datetime


def timestamp(in_s: float = 0) -> str:
    """The time now or in `in_s` seconds, in the format of Kubernetes (whole seconds)."""
    return datetime.fromtimestamp(time.time() + in_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Clock:
    """Timers by key. `speed`: seconds of the cluster per real second."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._begun: dict[Hashable, float] = {}
        self._next_s = float("inf")

    def start(self, key: Hashable) -> None:
        """Start the timer `key`, unless it is running."""
        self._begun.setdefault(key, time.monotonic())

    def stop(self, key: Hashable) -> None:
        self._begun.pop(key, None)

    def due(self, key: Hashable, after_s: float) -> bool:
        """Whether `key` has run for `after_s` seconds of the cluster. If not, `wait_s` takes it into account."""
        self.start(key)
        left_s = after_s / self.speed - (time.monotonic() - self._begun[key])
        if left_s > 0:
            self._next_s = min(self._next_s, left_s)
        return left_s <= 0

    def wait_s(self) -> float:
        """Real seconds until the next timer is due, of those queried since the last call."""
        nearest_s, self._next_s = self._next_s, float("inf")
        return nearest_s
