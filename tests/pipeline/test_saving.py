"""What is saved comes back, uploads go on aside, the newest stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adainf.errors import AdaInfError, Stopped, Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from tests.pipeline.conftest import (
    FOLDER,
    PATIENCE_S,
    SOON_S,
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


def test_keeping_none_is_refused(gate: Gate) -> None:
    with pytest.raises(ValueError, match="nothing to go on from"):
        started(gate, keep=0)


def test_the_end_leaves_nothing(uri: str) -> None:
    saved(started(uri), 1, 2).delete()
    assert contents(uri) == {}


def test_what_others_left_beside_a_finished_artifact_is_swept_and_they_are_ended(uri: str) -> None:
    other = saved(started(uri), 1, 2)
    Checkpoints(Run(uri), FOLDER).delete()
    assert contents(uri) == {}
    with pytest.raises(Superseded):
        other.check()


def test_the_caller_goes_on_while_the_upload_waits_and_the_copy_is_of_that_moment(gate: Gate) -> None:
    checkpoints = started(gate)
    tensors, curve = state(1), [(1, 0.5)]
    checkpoints.save(1, tensors, {"curve": curve})
    for tensor in tensors.values():
        tensor.add_(100)
    curve.append((2, 0.25))
    assert gate.reached.wait(PATIENCE_S)
    assert checkpoints.newest() is None

    waiting = in_thread(checkpoints.wait)
    waiting.join(SOON_S)
    assert waiting.is_alive(), "it must not return before the checkpoint is in the store"
    gate.open.set()
    waiting.join(PATIENCE_S)
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
    second.join(PATIENCE_S)
    checkpoints.wait()
    assert gate.steps == [1, 2]


def test_nothing_older_goes_before_the_newer_is_stored(gate: Gate) -> None:
    gate.open.set()
    checkpoints = saved(started(gate, keep=1), 1)
    gate.open.clear()
    gate.reached.clear()
    checkpoints.save(2, state(2), None)
    assert gate.reached.wait(PATIENCE_S)
    assert stored_steps(gate.uri) == [1]
    gate.open.set()
    checkpoints.wait()
    assert stored_steps(gate.uri) == [2]


@pytest.mark.parametrize("surface", [lambda c: c.wait(), lambda c: c.save(3, state(3), None)], ids=["wait", "save"])
def test_an_upload_that_fails_is_told_at_the_next_call_and_once(gate: Gate, surface: Callable[[Checkpoints], None]) -> None:
    gate.open.set()
    checkpoints = saved(started(gate, keep=1), 1)
    gate.error = AdaInfError("the store is away")
    checkpoints.save(2, state(2), None)
    with pytest.raises(AdaInfError, match="the store is away"):
        surface(checkpoints)
    assert stored_steps(gate.uri) == [1], "what was there before stays"
    gate.error = None
    checkpoints.wait()
    saved(checkpoints, 4)
    assert stored_steps(gate.uri) == [4]


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory"), Stopped("by a second signal")], ids=repr)
def test_whatever_ends_the_work_waits_for_the_upload(gate: Gate, error: BaseException | None) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with started(gate) as checkpoints:
                checkpoints.save(1, state(1), None)
                gate.error = AdaInfError("the store is away")
                if error:
                    raise error
        except BaseException as caught:
            raised.append(caught)

    thread = in_thread(work)
    thread.join(SOON_S)
    assert thread.is_alive()
    gate.open.set()
    thread.join(PATIENCE_S)
    assert raised == ([error] if error else []), "the reason why it ended counts, not how the upload did"
