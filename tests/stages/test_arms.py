"""What each arm trains on: the controls, the plan, each half of it, and what probes around it choose."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from adainf.browse.overview import Overview
from adainf.errors import BadInput
from adainf.inflation.search import VerifyResult, decide
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import pretrained
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe, Verify
from adainf.shards.loader.read_all import Labelled
from adainf.stages.mixture import check_batch
from adainf.stages.plan import plan
from adainf.stages.probe import judge_for
from adainf.stages.run import run as run_chain
from adainf.stages.verify import verify
from tests.tiny import RECIPE, write_recipe

IMPORT = """
generator:
  kind: import
  format: npz
  path: {path}
  provenance: {{generator: held-out digits, trained_on: digits, used_labels: false}}
quality: null
arms: [none, none-weak, vanilla, reweighted, weak, adainf, verified]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    """All arms on 256 real digits and 400 imported ones, whose quality nobody measures: so the plan refuses nothing."""
    folder = tmp_path_factory.mktemp("arms")
    digits = (load_digits().images[-400:] * 15.9).astype(np.uint8)
    np.savez(folder / "images.npz", image=np.repeat(digits[..., None], 3, axis=3))
    start, end = RECIPE.index("generator:"), RECIPE.index("plan:")
    plan = "plan: {reference_images: 256, verify: {budget: 0.25, deciding_seeds: 2}}"
    text = (
        RECIPE[:start] + IMPORT.format(path=folder / "images.npz") + RECIPE[end:].replace("plan: {reference_images: 256}", plan)
    )
    recipe, run = load_recipe(write_recipe(folder, text)), Run(str(folder / "run"))
    run_chain(recipe, run, Reporter(quiet=True))
    return recipe, run


def test_reweighted_and_weak_are_each_one_half_of_the_plan(finished: tuple[Recipe, Run]) -> None:
    """Would catch halves that are swapped, and a half that takes both choices."""
    _, run = finished
    plan = _content(run, "plan")
    by_arm = {
        arm: _content(run, pretrained(arm, 0)) for arm in ("none", "none-weak", "vanilla", "reweighted", "weak", "adainf")
    }
    weight, weak_views, views = plan["real_weight"], plan["views"], by_arm["none"]["views"]
    assert weight > 1
    assert weak_views != views
    found = {arm: (content["real_weight"], content["views"]) for arm, content in by_arm.items() if arm != "none"}
    assert found == {
        "none-weak": (1.0, weak_views),
        "vanilla": (1.0, views),
        "reweighted": (weight, views),
        "weak": (1.0, weak_views),
        "adainf": (weight, weak_views),
    }
    shares = {arm: content["generated_share"] for arm, content in by_arm.items()}
    assert shares["none"] == shares["none-weak"] == 0
    assert shares["vanilla"] == shares["weak"] == pytest.approx(400 / 656, abs=1e-6)
    assert shares["reweighted"] == shares["adainf"] == pytest.approx(400 / (400 + 256 * weight), abs=1e-6)


def test_the_report_has_a_colour_and_a_row_for_every_arm(finished: tuple[Recipe, Run]) -> None:
    recipe, run = finished
    page = Path(run.locate("report/index.html")).read_text()
    for arm in recipe.arms:
        assert f'<span class="dot {arm}">{arm}</span>' in page
        assert page.count(f"--arm-{arm}: #") == 2  # by day and by night


def test_arm_verified_is_trained_in_the_setting_that_was_chosen(finished: tuple[Recipe, Run]) -> None:
    """Would catch an arm that goes by the plan whatever the probes say, or by the controls' data in their views alone."""
    _, run = finished
    verified = VerifyResult.model_validate(_content(run, "verify"))
    trained, chosen = _content(run, pretrained("verified", 0)), verified.chosen
    assert trained["views"] == [view.model_dump() for view in chosen.views]
    assert (trained["generated_share"] > 0) == bool(chosen.weights)
    assert trained["real_weight"] == chosen.real_weight
    assert (
        decide({name: _deciding(verified, name) for name in verified.scores if _deciding(verified, name)}) == verified.decision
    )


def test_the_probes_are_halved_and_the_deciding_seeds_are_fresh(finished: tuple[Recipe, Run]) -> None:
    """14 settings by seed 0, 7 by seed 1, 3 by seed 2; then the finalists by seeds that chose none of them."""
    _, run = finished
    scores = VerifyResult.model_validate(_content(run, "verify")).scores
    by_seed = [sorted(name for name, of in scores.items() if str(seed) in of) for seed in range(5)]
    assert [len(names) for names in by_seed] == [14, 7, 3, 5, 5]
    assert {"prior", "none", "none-weak", "vanilla"} < set(by_seed[3])
    assert set(by_seed[3]) == set(by_seed[4])
    assert len(list(run.store.list("verify/probes/"))) == 34


def test_what_was_chosen_and_why_is_in_the_plan_on_the_page_and_in_the_browser(
    finished: tuple[Recipe, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = finished
    why = _content(run, "verify")["why"]
    plan(recipe, run, Reporter())
    printed = capsys.readouterr().out
    page = html.unescape(Path(run.locate("report/index.html")).read_text())
    assert len(why) == 2
    assert Overview(run).read()["verified"] == why
    for line in why:
        assert line in printed
        assert line.strip() in page


def test_the_choice_is_in_the_plans_json_where_it_answers_the_recipe(
    finished: tuple[Recipe, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch scores of seeds that chose finalists among those that decide, and a choice that another recipe asked for."""
    recipe, run = finished
    verified = VerifyResult.model_validate(_content(run, "verify"))

    def told(recipe: Recipe) -> Any:
        plan(recipe, run, Reporter(), as_json=True)
        return json.loads(capsys.readouterr().out)["verify"]

    found = told(recipe)
    assert found["chosen"] == verified.chosen.name
    assert (found["real_weight"], found["weights"]) == (verified.chosen.real_weight, verified.chosen.weights)
    view = verified.chosen.views[0]
    assert found["augmentation"] == {
        "profile": "symmetric",
        "crop_min_scale": view.min_scale,
        "jitter_strength": view.brightness,
        "jitter_probability": view.jitter_probability,
    }
    assert verified.decision is not None
    decision = verified.decision.model_dump()
    assert found["decision"] == {name: decision[name] for name in ("rival", "difference", "noise")}
    assert found["why"] == [line.strip() for line in verified.why]
    finalists = {name: _deciding(verified, name) for name in verified.scores if _deciding(verified, name)}
    assert found["scores"].keys() == finalists.keys()
    for name, (one, other) in finalists.items():
        mean, half = (one + other) / 2, 12.706 * abs(one - other) / 2  # Student's t for one degree of freedom
        assert found["scores"][name]["mean"] == pytest.approx(mean, abs=1e-6)
        assert found["scores"][name]["interval"] == pytest.approx([mean - half, mean + half], abs=1e-6)
        assert found["scores"][name]["seeds"] == 2
    asked = recipe.plan.model_copy(update={"verify": Verify(budget=0.5, deciding_seeds=2)})
    assert told(recipe.model_copy(update={"plan": asked})) is None


def test_probes_that_are_there_are_not_made_again(finished: tuple[Recipe, Run], tmp_path: Path) -> None:
    """A killed verify goes on: of two probes and the choice that are gone nothing else is touched, and the end is the same."""
    recipe, run = finished
    folder = Path(run.locate(""))
    for name in ("real", "generated", "verify"):
        shutil.copytree(folder / name, tmp_path / name)
    shutil.copy(folder / "plan.json", tmp_path)
    whole = (tmp_path / "verify/manifest.json").read_bytes()
    lost = ["verify/manifest.json", "verify/probes/none/seed-3.json", "verify/probes/weaker-crop/seed-0.json"]
    for key in lost:
        (tmp_path / key).unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    verify(recipe, Run(str(tmp_path)), Reporter(quiet=True), worker=(1, 2))  # a worker whose companion never comes
    assert (tmp_path / "verify/manifest.json").read_bytes() == whole
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_without_labels_it_judges_by_infonce_and_refuses_a_probe(finished: tuple[Recipe, Run]) -> None:
    recipe, _ = finished
    unlabelled = {name: Labelled(np.zeros((4, 8, 8, 3), np.uint8), np.full(4, -1)) for name in ("train", "validation")}
    assert judge_for(recipe, unlabelled) == "infonce"
    asked = recipe.model_copy(update={"plan": recipe.plan.model_copy(update={"verify": Verify(judged_by="linear")})})
    with pytest.raises(BadInput, match="no labels of two classes; set it to infonce"):
        judge_for(asked, unlabelled)


def _deciding(verified: VerifyResult, name: str) -> list[float]:
    return [score for seed, score in verified.scores[name].items() if int(seed) >= 3 and score is not None]


def _content(run: Run, name: str) -> dict[str, Any]:
    manifest = run.find(name)
    assert manifest is not None
    return manifest.content


def test_a_share_beyond_exact_arithmetic_is_refused_before_anything_is_claimed(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path)))
    check_batch(recipe, "adainf", [999_999_937, 7_999_999_991], [9.87, 0.123])
    with pytest.raises(BadInput, match=r"arm 'adainf': counts .* give a share below 2\^-40; choose weights that differ less"):
        check_batch(recipe, "adainf", [999_999_937, 7_999_999_991], [9.87, 1e-30])
