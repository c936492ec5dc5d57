"""How hard a store is read: how many reads run at once, and when its failures are too many. No network, no clock."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def pause(attempt: int) -> None:
    """Sleep before the attempt after `attempt` failures: full jitter, so that many readers do not come back at once."""
    time.sleep(random.uniform(0, min(20.0, 0.1 * 2**attempt)))


class Pace:
    """What all threads of a process that read one store share.

    At most `limit` reads run at once. A store that asks for less halves it, down to 1 and once a round: a read that
    began before the last halving tells nothing new. Every `at_once` successes add 1 again, up to `at_once`.

    A failure takes a token, a success gives one back, up to `budget`. So a store that fails every fourth read for ever
    is lived with, and one that fails them all is given up after `budget` failures of all threads together, not after
    every thread's own attempts for every object.
    """

    def __init__(self, at_once: int, budget: int) -> None:
        if at_once < 1 or budget < 1:
            raise ValueError(f"{at_once} reads at once with a budget of {budget}: both must be 1 or more")
        self.limit = at_once
        self._at_once = at_once
        self._budget = budget
        self._tokens = budget
        self._running = 0
        self._round = 0
        self._successes_to_more = at_once
        self._failed = self._ended = 0  # since the budget was last whole
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Wait until one more may read; within the block it does. Yields the round, which `failed` asks for."""
        with self._changed:
            self._changed.wait_for(lambda: self._running < self.limit)
            self._running += 1
            began = self._round
        try:
            yield began
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        """A read came to its end."""
        with self._changed:
            self._ended += 1
            self._tokens += 1
            if self._tokens >= self._budget:
                self._tokens, self._failed, self._ended = self._budget, 0, 0
            self._successes_to_more -= 1
            if self._successes_to_more == 0:
                self._successes_to_more = self._at_once
                self.limit = min(self.limit + 1, self._at_once)
                self._changed.notify_all()

    def failed(self) -> bool:
        """A read failed. False where the budget is spent, so that it must not be tried again."""
        with self._changed:
            self._failed += 1
            self._ended += 1
            spent = self._tokens == 0
            self._tokens -= not spent
            return not spent

    def throttled(self, began: int) -> None:
        """The store asked for less of a read that began in the round `began`."""
        with self._changed:
            if began == self._round:
                self._round += 1
                self.limit = max(1, self.limit // 2)
                self._successes_to_more = self._at_once

    @property
    def tally(self) -> str:
        """How many reads failed, in words, since all was well."""
        with self._changed:
            return f"{self._failed} of {self._ended} reads failed"
