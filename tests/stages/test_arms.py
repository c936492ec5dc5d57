"""What each arm trains on: the controls, the plan, and each half of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from adainf.artifacts import Run
from adainf.chain import pretrained
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.recipefile import load_recipe
from adainf.stages.run import run as run_chain
from tests.tiny import RECIPE, write_recipe

IMPORT = """
generator:
  kind: import
  format: npz
  path: {path}
  provenance: {{generator: held-out digits, trained_on: digits, used_labels: false}}
quality: null
arms: [none, vanilla, reweighted, weak, adainf]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    """All arms on 256 real digits and 400 imported ones, whose quality nobody measures: so the plan refuses nothing."""
    folder = tmp_path_factory.mktemp("arms")
    digits = (load_digits().images[-400:] * 15.9).astype(np.uint8)
    np.savez(folder / "images.npz", image=np.repeat(digits[..., None], 3, axis=3))
    start, end = RECIPE.index("generator:"), RECIPE.index("plan:")
    text = RECIPE[:start] + IMPORT.format(path=folder / "images.npz") + RECIPE[end:]
    recipe, run = load_recipe(write_recipe(folder, text)), Run(str(folder / "run"))
    run_chain(recipe, run, Reporter(quiet=True))
    return recipe, run


def test_reweighted_and_weak_are_each_one_half_of_the_plan(finished: tuple[Recipe, Run]) -> None:
    """Would catch halves that are swapped, and a half that takes both choices."""
    _, run = finished
    plan = _content(run, "plan")
    by_arm = {arm: _content(run, pretrained(arm, 0)) for arm in ("none", "vanilla", "reweighted", "weak", "adainf")}
    weight, weak_views, views = plan["real_weight"], plan["views"], by_arm["none"]["views"]
    assert weight > 1
    assert weak_views != views
    found = {arm: (content["real_weight"], content["views"]) for arm, content in by_arm.items() if arm != "none"}
    assert found == {
        "vanilla": (1.0, views),
        "reweighted": (weight, views),
        "weak": (1.0, weak_views),
        "adainf": (weight, weak_views),
    }
    shares = {arm: content["generated_share"] for arm, content in by_arm.items()}
    assert shares["none"] == 0
    assert shares["vanilla"] == shares["weak"] == pytest.approx(400 / 656, abs=1e-6)
    assert shares["reweighted"] == shares["adainf"] == pytest.approx(400 / (400 + 256 * weight), abs=1e-6)


def test_the_report_has_a_colour_and_a_row_for_every_arm(finished: tuple[Recipe, Run]) -> None:
    recipe, run = finished
    page = Path(run.locate("report/index.html")).read_text()
    for arm in recipe.arms:
        assert f'<span class="dot {arm}">{arm}</span>' in page
        assert page.count(f"--arm-{arm}: #") == 2  # by day and by night


def _content(run: Run, name: str) -> dict[str, Any]:
    manifest = run.find(name)
    assert manifest is not None
    return manifest.content
