"""A damaged checkpoint is told and passed over, and costs nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.storage import open_store
from tests.pipeline.conftest import (
    FOLDER,
    PREFIX,
    Gate,
    key,
    saved,
    started,
    stored_steps,
)


class _Trap:
    """Unpickled it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


DAMAGE: dict[str, Callable[[bytes, Path], bytes]] = {
    "truncated": lambda data, trap: data[: len(data) // 2],
    "one byte short": lambda data, trap: data[:-1],
    "a turned bit": lambda data, trap: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "empty": lambda data, trap: b"",
    "a pickle": lambda data, trap: pickle.dumps(_Trap(trap)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_one_is_told_and_passed_over(uri: str, tmp_path: Path, damage: str) -> None:
    saved(started(uri), 3, 6)
    store, trap = open_store(uri), tmp_path / "trap"
    store.put(key(6), DAMAGE[damage](store.get(key(6)), trap))
    said: list[str] = []
    checkpoints = started(uri, log=said.append)
    assert checkpoints.newest() == 3
    assert len(said) == 1
    assert said[0].startswith(f"{uri}/{key(6)} is damaged (")
    assert said[0].endswith("); passed over")
    with pytest.raises(BadInput, match=r"000000000006.safetensors is damaged .*; delete it and run its stage again$"):
        checkpoints.load(6)
    assert not trap.exists()
    # Saving more often than before: a damaged file of a later step must not count among the newest.
    saved(checkpoints, 4, 5)
    assert stored_steps(uri) == [4, 5]
    assert checkpoints.newest() == 5


def test_with_every_one_damaged_it_starts_anew_and_deletes_none(uri: str) -> None:
    saved(started(uri), 3, 6)
    store = open_store(uri)
    for step in (3, 6):
        store.put(key(step), store.get(key(step))[:-1])
    said: list[str] = []
    checkpoints = started(uri, log=said.append)
    assert checkpoints.newest() is None
    assert [line.rpartition("; ")[2] for line in said] == ["passed over", "passed over", "starting from step 0"]
    assert stored_steps(uri) == [3, 6]
    saved(checkpoints, 1)
    assert stored_steps(uri) == [1]


@pytest.mark.parametrize(
    "source", [f"{PREFIX}000000000006.safetensors", "pretrain/none/seed-1/checkpoints/000000000007.safetensors"]
)
def test_a_checkpoint_of_another_step_or_artifact_is_none(uri: str, source: str) -> None:
    checkpoints = saved(started(uri), 3, 6)
    other = Checkpoints(Run(uri), "pretrain/none/seed-1")
    other.begin()
    saved(other, 7)
    store = open_store(uri)
    store.put(key(7), store.get(source))
    assert checkpoints.newest() == 6
    with pytest.raises(BadInput, match=f"it is not of step 7 of {FOLDER}"):
        checkpoints.load(7)


def test_a_store_that_fails_is_not_taken_for_damage(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.open.set()
    checkpoints = saved(started(gate), 1)

    def forbidden(*_: object, **__: object) -> bytes:
        raise BadInput("access denied")

    monkeypatch.setattr(gate, "get", forbidden, raising=False)
    with pytest.raises(BadInput, match="access denied"):
        checkpoints.newest()
