"""The fixture that writes synthetic runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adainf.pipeline.artifacts import Run
from adainf.recipe import Recipe
from tests.report.synthetic_run import Made, write_run


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., tuple[Recipe, Run]]:
    """build(made, folder="run") → recipe and a run with every artifact except the report."""

    def make(made: Made | None = None, folder: str = "run") -> tuple[Recipe, Run]:
        made = made or Made()
        return made.recipe, write_run(made, tmp_path / folder)

    return make
