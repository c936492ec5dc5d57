"""Checkpoints: save and load, background uploads, retention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adainf.errors import AdaInfError, Stopped, Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from tests.pipeline.conftest import (
    FOLDER,
    SOON_S,
    TIMEOUT_S,
    Gate,
    contents,
    in_thread,
    saved,
    started,
    state,
    stored_steps,
)


def test_every_rank_loads_what_was_saved(uri: str) -> None:
    assert started(uri).newest() is None
    saved(started(uri), 5, 7)
    other_rank = Checkpoints(Run(uri), FOLDER)
    assert other_rank.newest() == 7
    for step in (5, 7):
        tensors, extra = other_rank.load(step)
        assert extra == {"step": step}
        assert tensors.keys() == state(step).keys()
        assert all(torch.equal(tensors[name], value) for name, value in state(step).items())


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(uri: str, keep: int) -> None:
    saved(started(uri, keep=keep), 8, 9, 10, 11)
    assert stored_steps(uri) == [8, 9, 10, 11][-keep:]


def test_keep_zero_is_refused(gate: Gate) -> None:
    with pytest.raises(ValueError, match="a checkpoint to resume from"):
        started(gate, keep=0)


def test_delete_leaves_nothing(uri: str) -> None:
    saved(started(uri), 1, 2).delete()
    assert contents(uri) == {}


def test_delete_without_begin_cleans_up_and_fences_off_other_attempts(uri: str) -> None:
    other = saved(started(uri), 1, 2)
    Checkpoints(Run(uri), FOLDER).delete()
    assert contents(uri) == {}
    with pytest.raises(Superseded):
        other.check()


def test_save_returns_before_the_upload_and_copies_the_state(gate: Gate) -> None:
    checkpoints = started(gate)
    tensors, curve = state(1), [(1, 0.5)]
    checkpoints.save(1, tensors, {"curve": curve})
    for tensor in tensors.values():
        tensor.add_(100)
    curve.append((2, 0.25))
    assert gate.reached.wait(TIMEOUT_S)
    assert checkpoints.newest() is None

    waiting = in_thread(checkpoints.wait)
    waiting.join(SOON_S)
    assert waiting.is_alive(), "it must not return before the checkpoint is in the store"
    gate.open.set()
    waiting.join(TIMEOUT_S)
    loaded, extra = checkpoints.load(1)
    assert all(torch.equal(loaded[name], value) for name, value in state(1).items())
    assert extra == {"curve": [[1, 0.5]]}


def test_a_second_save_waits_for_the_first(gate: Gate) -> None:
    checkpoints = started(gate)
    checkpoints.save(1, state(1), None)
    second = in_thread(lambda: checkpoints.save(2, state(2), None))
    second.join(SOON_S)
    assert second.is_alive()
    gate.open.set()
    second.join(TIMEOUT_S)
    checkpoints.wait()
    assert gate.steps == [1, 2]


def test_an_older_checkpoint_is_deleted_only_after_the_newer_is_stored(gate: Gate) -> None:
    gate.open.set()
    checkpoints = saved(started(gate, keep=1), 1)
    gate.open.clear()
    gate.reached.clear()
    checkpoints.save(2, state(2), None)
    assert gate.reached.wait(TIMEOUT_S)
    assert stored_steps(gate.uri) == [1]
    gate.open.set()
    checkpoints.wait()
    assert stored_steps(gate.uri) == [2]


@pytest.mark.parametrize("surface", [lambda c: c.wait(), lambda c: c.save(3, state(3), None)], ids=["wait", "save"])
def test_a_failed_upload_raises_once_at_the_next_call(gate: Gate, surface: Callable[[Checkpoints], None]) -> None:
    gate.open.set()
    checkpoints = saved(started(gate, keep=1), 1)
    gate.error = AdaInfError("the store is down")
    checkpoints.save(2, state(2), None)
    with pytest.raises(AdaInfError, match="the store is down"):
        surface(checkpoints)
    assert stored_steps(gate.uri) == [1], "the previous checkpoint stays"
    gate.error = None
    checkpoints.wait()
    saved(checkpoints, 4)
    assert stored_steps(gate.uri) == [4]


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory"), Stopped("by a second signal")], ids=repr)
def test_every_end_of_the_block_waits_for_the_upload(gate: Gate, error: BaseException | None) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with started(gate) as checkpoints:
                checkpoints.save(1, state(1), None)
                gate.error = AdaInfError("the store is down")
                if error:
                    raise error
        except BaseException as caught:
            raised.append(caught)

    thread = in_thread(work)
    thread.join(SOON_S)
    assert thread.is_alive()
    gate.open.set()
    thread.join(TIMEOUT_S)
    assert raised == ([error] if error else []), "the exception of the block takes precedence over that of the upload"
