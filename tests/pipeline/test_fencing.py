"""Fencing: only the newest attempt of a stage writes; stale attempts are fenced off."""

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
    TIMEOUT_S,
    Gate,
    contents,
    in_thread,
    key,
    saved,
    started,
    state,
    stored_steps,
)


def test_a_stale_attempt_cannot_write(uri: str) -> None:
    older = saved(started(uri, keep=1), 1)
    newer = started(uri, keep=1)
    assert newer.newest() == 1

    def refused() -> None:
        before = contents(uri)
        for act in (older.check, lambda: saved(older, 2), older.delete):
            with pytest.raises(Superseded, match=r"a newer attempt of this stage has taken over .*; wait for that one$"):
                act()
        assert contents(uri) == before

    refused()
    saved(newer, 3)
    refused()
    newer.check()
    newer.delete()
    assert contents(uri) == {}
    refused()


def test_an_attempt_superseded_during_an_upload_deletes_nothing(gate: Gate) -> None:
    gate.open.set()
    older = saved(started(gate, keep=1), 1)
    gate.open.clear()
    gate.reached.clear()
    older.save(2, state(2), None)
    assert gate.reached.wait(TIMEOUT_S)
    newer = started(gate.uri)
    gate.open.set()
    with pytest.raises(Superseded):
        older.wait()
    assert stored_steps(gate.uri) == [1, 2], "the newer attempt may be loading any of them"
    assert newer.newest() == 2


def test_an_upload_that_outlives_the_stage_is_deleted(gate: Gate) -> None:
    older = started(gate)
    older.save(2, state(2), None)
    assert gate.reached.wait(TIMEOUT_S)
    saved(started(gate.uri), 1, 2, 3).delete()
    gate.open.set()
    with pytest.raises(Superseded):
        older.wait()
    assert contents(gate.uri) == {}


def test_a_checkpoint_deleted_before_its_load_means_superseded(uri: str) -> None:
    checkpoints = saved(started(uri), 1)
    open_store(uri).delete(key(1))
    with pytest.raises(Superseded):
        checkpoints.load(1)


def test_one_of_many_concurrent_attempts_stays_alive(uri: str) -> None:
    attempts = [Attempt(Run(uri), FENCE) for _ in range(6)]
    threads = [in_thread(attempt.begin) for attempt in attempts]
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert json.loads(open_store(uri).get(FENCE))["attempt"] == len(attempts), "each attempt has seen its predecessor"
    alive = 0
    for attempt in attempts:
        with suppress(Superseded):
            attempt.check()
            alive += 1
    assert alive == 1


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'{"attempt": "x"}', b'{"attempt": null}', b"\xff"])
def test_a_corrupt_fencing_token_is_taken_over(gate: Gate, content: bytes) -> None:
    gate.open.set()
    older = started(gate)
    gate.put(FENCE, content)
    with pytest.raises(Superseded):
        older.check()
    saved(started(gate), 1)
