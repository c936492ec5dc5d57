"""Stores that block an upload, and checkpoints in them; in a folder and on S3."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.storage import ObjectInfo, Store, open_store

FOLDER = "pretrain/none/seed-0"
PREFIX = f"{FOLDER}/checkpoints/"
FENCE = f"{PREFIX}attempt.json"
TIMEOUT_S = 30
SOON_S = 0.3


def key(step: int) -> str:
    return f"{PREFIX}{step:012d}.safetensors"


def state(step: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((64,), float(step)), "count": torch.tensor(step)}


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3_env")) if request.param == "s3" else str(tmp_path / "run")


class Gate:
    """A store whose checkpoint uploads block until `open` is set, then raise `error` if it is set."""

    def __init__(self, uri: str) -> None:
        self._store: Any = open_store(uri)
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.steps: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        if key.endswith(".safetensors"):
            self.reached.set()
            assert self.open.wait(TIMEOUT_S)
            self.steps.append(int(key[-24:-12]))
            if self.error:
                raise self.error
        return self._store.put(key, data)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "run"))


def started(store: Store | Gate | str, **options: Any) -> Checkpoints:
    """The checkpoints of a new attempt, which has taken over."""
    checkpoints = Checkpoints(Run(store), FOLDER, **options)  # type: ignore[arg-type]
    checkpoints.begin()
    return checkpoints


def saved(checkpoints: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        checkpoints.save(step, state(step), {"step": step})
    checkpoints.wait()
    return checkpoints


def stored_steps(uri: str) -> list[int]:
    keys = [info.key for info in open_store(uri).list(PREFIX) if info.key != FENCE]
    steps = [int(each[-24:-12]) for each in keys]
    assert keys == [key(step) for step in steps]
    return steps


def contents(uri: str) -> dict[str, bytes]:
    store = open_store(uri)
    return {info.key: store.get(info.key) for info in store.list()}


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
