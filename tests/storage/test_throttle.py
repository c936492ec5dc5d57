"""The concurrency limiter and the retry budget."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from adainf.storage.s3.throttle import ConcurrencyLimiter, RetryBudget


def epochs(limiter: ConcurrencyLimiter, count: int) -> list[int]:
    """The epochs of `count` concurrent reads."""
    with ThreadPoolExecutor(count) as pool:
        together = threading.Barrier(count)

        def read() -> int:
            with limiter.slot() as epoch:
                together.wait(5)
                return epoch

        return [future.result() for future in [pool.submit(read) for _ in range(count)]]


def test_concurrent_reads_do_not_exceed_the_limit() -> None:
    limiter = ConcurrencyLimiter(3)
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def read() -> None:
        nonlocal running, most
        with limiter.slot():
            with lock:
                running += 1
                most = max(most, running)
                if running == 3:
                    full.set()
            full.wait(5)
            with lock:
                running -= 1

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(read) for _ in range(50)]:
            future.result()
    assert most == 3


def test_the_limit_halves_once_per_epoch_and_not_below_one() -> None:
    limiter = ConcurrencyLimiter(8)
    for limit in (4, 2, 1, 1):
        for epoch in epochs(limiter, limiter.limit):  # all of them are throttled
            limiter.on_throttled(epoch)
        assert limiter.limit == limit


def test_a_read_from_before_the_decrease_is_ignored() -> None:
    limiter = ConcurrencyLimiter(8)
    old = epochs(limiter, 2)
    limiter.on_throttled(old[0])
    new = epochs(limiter, 1)
    limiter.on_throttled(old[1])
    assert limiter.limit == 4
    limiter.on_throttled(new[0])
    assert limiter.limit == 2


def test_every_max_reads_successes_raise_the_limit() -> None:
    limiter = ConcurrencyLimiter(4)
    for epoch in (0, 1):
        limiter.on_throttled(epoch)
    limits = []
    for _ in range(20):
        limiter.on_success()
        limits.append(limiter.limit)
    assert limits == [1] * 3 + [2] * 4 + [3] * 4 + [4] * 9


def test_a_waiting_read_starts_when_the_limit_rises() -> None:
    limiter = ConcurrencyLimiter(2)
    limiter.on_throttled(0)
    with limiter.slot(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(epochs, limiter, 1)
        limiter.on_success()
        assert not waiting.done()
        limiter.on_success()
        assert waiting.result(5) == [1]


def test_an_error_releases_the_slot() -> None:
    limiter = ConcurrencyLimiter(1)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), limiter.slot():
            raise KeyboardInterrupt


def test_a_quarter_of_failures_never_exhausts_the_retry_budget() -> None:
    budget = RetryBudget(20)
    rng = random.Random(0)
    for _ in range(100_000):
        if rng.random() < 0.25:
            assert budget.on_failure()
        else:
            budget.on_success()


def test_failures_exhaust_the_retry_budget_and_successes_refill_it() -> None:
    budget = RetryBudget(20)
    budget.on_success()  # a full bucket does not grow
    assert [budget.on_failure() for _ in range(22)] == [True] * 20 + [False] * 2
    assert budget.summary == "22 of 22 reads failed"
    budget.on_success()
    assert budget.summary == "22 of 23 reads failed"
    assert [budget.on_failure() for _ in range(2)] == [True, False]
    for _ in range(20):
        budget.on_success()
    assert budget.summary == "0 of 0 reads failed"


@pytest.mark.parametrize("kind", [ConcurrencyLimiter, RetryBudget])
def test_sizes_below_one_are_refused(kind: type[ConcurrencyLimiter] | type[RetryBudget]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        kind(0)
