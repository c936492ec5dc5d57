"""Of several starts of a stage the last goes on, and the others change nothing more."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from adainf.errors import Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.fencing import Attempt
from adainf.storage import open_store
from tests.pipeline.conftest import (
    FENCE,
    PATIENCE_S,
    Gate,
    contents,
    in_thread,
    key,
    saved,
    started,
    state,
    stored_steps,
)


def test_the_older_of_two_starts_changes_nothing_more(uri: str) -> None:
    older = saved(started(uri, keep=1), 1)
    newer = started(uri, keep=1)
    assert newer.newest() == 1

    def refused() -> None:
        before = contents(uri)
        for act in (older.check, lambda: saved(older, 2), older.delete):
            with pytest.raises(Superseded, match=r"another start of this stage has taken over .*; this one stops$"):
                act()
        assert contents(uri) == before

    refused()
    saved(newer, 3)
    refused()
    newer.check()
    newer.delete()
    assert contents(uri) == {}
    refused()


def test_superseded_during_an_upload_it_deletes_nothing(gate: Gate) -> None:
    gate.open.set()
    older = saved(started(gate, keep=1), 1)
    gate.open.clear()
    gate.reached.clear()
    older.save(2, state(2), None)
    assert gate.reached.wait(PATIENCE_S)
    newer = started(gate.uri)
    gate.open.set()
    with pytest.raises(Superseded):
        older.wait()
    assert stored_steps(gate.uri) == [1, 2], "the newer one may be loading any of them"
    assert newer.newest() == 2


def test_an_upload_that_outlives_the_stage_is_taken_back(gate: Gate) -> None:
    older = started(gate)
    older.save(2, state(2), None)
    assert gate.reached.wait(PATIENCE_S)
    saved(started(gate.uri), 1, 2, 3).delete()
    gate.open.set()
    with pytest.raises(Superseded):
        older.wait()
    assert contents(gate.uri) == {}


def test_a_checkpoint_that_was_deleted_before_it_was_loaded_is_anothers_doing(uri: str) -> None:
    checkpoints = saved(started(uri), 1)
    open_store(uri).delete(key(1))
    with pytest.raises(Superseded):
        checkpoints.load(1)


def test_of_many_starts_at_once_one_goes_on(uri: str) -> None:
    attempts = [Attempt(Run(uri), FENCE) for _ in range(6)]
    threads = [in_thread(attempt.begin) for attempt in attempts]
    for thread in threads:
        thread.join(PATIENCE_S)
    assert json.loads(open_store(uri).get(FENCE))["attempt"] == len(attempts), "each has seen the one before it"
    alive = 0
    for attempt in attempts:
        with suppress(Superseded):
            attempt.check()
            alive += 1
    assert alive == 1


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'{"attempt": "x"}', b'{"attempt": null}', b"\xff"])
def test_a_damaged_fence_is_taken_over(gate: Gate, content: bytes) -> None:
    gate.open.set()
    older = started(gate)
    gate.put(FENCE, content)
    with pytest.raises(Superseded):
        older.check()
    saved(started(gate), 1)
