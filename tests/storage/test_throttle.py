"""How many reads run at once, and when a store is given up."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from adainf.storage.s3.throttle import Pace


def rounds(pace: Pace, count: int) -> list[int]:
    """The rounds of so many reads that run at the same time."""
    with ThreadPoolExecutor(count) as pool:
        together = threading.Barrier(count)

        def read() -> int:
            with pace.turn() as began:
                together.wait(5)
                return began

        return [future.result() for future in [pool.submit(read) for _ in range(count)]]


def test_no_more_than_the_limit_read_at_once() -> None:
    pace = Pace(3, 10)
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def read() -> None:
        nonlocal running, most
        with pace.turn():
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


def test_the_limit_halves_once_a_round_and_not_below_one() -> None:
    pace = Pace(8, 10)
    for limit in (4, 2, 1, 1):
        for began in rounds(pace, pace.limit):  # all of them are refused
            pace.throttled(began)
        assert pace.limit == limit


def test_a_read_from_before_the_halving_tells_nothing_new() -> None:
    pace = Pace(8, 10)
    old = rounds(pace, 2)
    pace.throttled(old[0])
    new = rounds(pace, 1)
    pace.throttled(old[1])
    assert pace.limit == 4
    pace.throttled(new[0])
    assert pace.limit == 2


def test_each_n_successes_let_one_more_read() -> None:
    pace = Pace(4, 10)
    for began in (0, 1):
        pace.throttled(began)
    limits = []
    for _ in range(20):
        pace.succeeded()
        limits.append(pace.limit)
    assert limits == [1] * 3 + [2] * 4 + [3] * 4 + [4] * 9


def test_whoever_waits_is_let_in_when_the_limit_rises() -> None:
    pace = Pace(2, 10)
    pace.throttled(0)
    with pace.turn(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rounds, pace, 1)
        pace.succeeded()
        assert not waiting.done()
        pace.succeeded()
        assert waiting.result(5) == [1]


def test_an_error_gives_the_turn_back() -> None:
    pace = Pace(1, 10)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), pace.turn():
            raise KeyboardInterrupt


def test_a_quarter_of_failures_never_spends_the_budget() -> None:
    pace = Pace(8, 20)
    rng = random.Random(0)
    for _ in range(100_000):
        if rng.random() < 0.25:
            assert pace.failed()
        else:
            pace.succeeded()


def test_nothing_but_failures_spends_it_and_successes_give_it_back() -> None:
    pace = Pace(8, 20)
    pace.succeeded()  # a full budget does not grow
    assert [pace.failed() for _ in range(22)] == [True] * 20 + [False] * 2
    assert pace.tally == "22 of 22 reads failed"
    pace.succeeded()
    assert pace.tally == "22 of 23 reads failed"
    assert [pace.failed() for _ in range(2)] == [True, False]
    for _ in range(20):
        pace.succeeded()
    assert pace.tally == "0 of 0 reads failed"


@pytest.mark.parametrize(("at_once", "budget"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(at_once: int, budget: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Pace(at_once, budget)
