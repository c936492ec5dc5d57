"""A corrupt checkpoint is logged and skipped, without other effects."""

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
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


CORRUPTIONS: dict[str, Callable[[bytes, Path], bytes]] = {
    "truncated": lambda data, trap: data[: len(data) // 2],
    "one byte short": lambda data, trap: data[:-1],
    "a bit flip": lambda data, trap: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "empty": lambda data, trap: b"",
    "a pickle": lambda data, trap: pickle.dumps(_Trap(trap)),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_newest_checkpoint_is_logged_and_skipped(uri: str, tmp_path: Path, corruption: str) -> None:
    saved(started(uri), 3, 6)
    store, trap = open_store(uri), tmp_path / "trap"
    store.put(key(6), CORRUPTIONS[corruption](store.get(key(6)), trap))
    lines: list[str] = []
    checkpoints = started(uri, log=lines.append)
    assert checkpoints.newest() == 3
    assert len(lines) == 1
    assert lines[0].startswith(f"{uri}/{key(6)} is corrupt (")
    assert lines[0].endswith("); skipped")
    with pytest.raises(BadInput, match=r"000000000006.safetensors is corrupt .*; delete it and run its stage again$"):
        checkpoints.load(6)
    assert not trap.exists()
    # With a shorter interval: a corrupt file of a later step must not count among the newest.
    saved(checkpoints, 4, 5)
    assert stored_steps(uri) == [4, 5]
    assert checkpoints.newest() == 5


def test_if_all_are_corrupt_it_starts_again_and_deletes_none(uri: str) -> None:
    saved(started(uri), 3, 6)
    store = open_store(uri)
    for step in (3, 6):
        store.put(key(step), store.get(key(step))[:-1])
    lines: list[str] = []
    checkpoints = started(uri, log=lines.append)
    assert checkpoints.newest() is None
    assert [line.rpartition("; ")[2] for line in lines] == ["skipped", "skipped", "starting from step 0"]
    assert stored_steps(uri) == [3, 6]
    saved(checkpoints, 1)
    assert stored_steps(uri) == [1]


@pytest.mark.parametrize(
    "source", [f"{PREFIX}000000000006.safetensors", "pretrain/none/seed-1/checkpoints/000000000007.safetensors"]
)
def test_a_checkpoint_of_another_step_or_artifact_is_corrupt(uri: str, source: str) -> None:
    checkpoints = saved(started(uri), 3, 6)
    other = Checkpoints(Run(uri), "pretrain/none/seed-1")
    other.begin()
    saved(other, 7)
    store = open_store(uri)
    store.put(key(7), store.get(source))
    assert checkpoints.newest() == 6
    with pytest.raises(BadInput, match=f"it is not the checkpoint of step 7 of {FOLDER}"):
        checkpoints.load(7)


def test_an_error_of_the_store_is_not_corruption(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.open.set()
    checkpoints = saved(started(gate), 1)

    def forbidden(*_: object, **__: object) -> bytes:
        raise BadInput("access denied")

    monkeypatch.setattr(gate, "get", forbidden, raising=False)
    with pytest.raises(BadInput, match="access denied"):
        checkpoints.newest()
