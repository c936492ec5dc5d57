"""Workers of evaluate share the arms: each arm is judged once, whatever their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.stages import evaluate as stage
from tests.tiny import write_recipe


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6])
def test_each_arm_is_judged_by_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    judged: list[Any] = []
    monkeypatch.setattr(stage, "_evaluate_one", lambda recipe, run, reporter, arm: judged.append(arm))
    for worker in range(workers):
        stage.evaluate(load_recipe(write_recipe(tmp_path)), Run(str(tmp_path)), Reporter(), worker=(worker, workers))
    assert sorted(judged) == ["adainf", "none", "none-weak", "untrained", "vanilla"]
