"""The studies' data, statistics and recipes; the cells themselves run `adainf`'s own stages."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from adainf.pipeline.load_recipe import load_recipe
from adainf.recipe import Diffusion
from benchmarks.studies import data, results
from benchmarks.studies.base import Study
from benchmarks.studies.cells import score_file, write_score
from benchmarks.study import STUDIES, FashionMnist

NOISE = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)


@pytest.mark.parametrize("variant", data.SOURCES)
def test_the_images_are_those_that_the_study_is_pinned_to_and_no_two_parts_share_one(variant: str) -> None:
    cifar = variant.startswith("cifar")
    if not (data.CIFAR10 if cifar else data.FASHION_MNIST).is_dir():
        pytest.skip("no data: dataset-fashion-mnist is Debian's, CIFAR-10 comes by python -m benchmarks.studies.cifar")
    cut = data.parts(variant)  # raises for another digest
    assert [len(part.labels) for part in cut] == [7_000, 10_000, 33_000 if cifar else 43_000, 10_000]
    # Some garments were photographed twice: the share of equal images between parts is that of any two parts, well below 1 %.
    seen = {hashlib.sha256(image.tobytes()).digest() for image in cut.pool.images}
    assert sum(hashlib.sha256(image.tobytes()).digest() in seen for image in cut.probe.images) < 100


def test_a_hardened_image_is_a_function_of_its_pixels_and_its_number_alone() -> None:
    """Would catch random numbers that are drawn for all images at once, so that a subset differs."""
    assert np.array_equal(data.hardened(NOISE[:7]), data.hardened(NOISE)[:7])
    assert not np.array_equal(data.hardened(NOISE[[3] * 9])[3], data.hardened(NOISE[[3] * 9])[4])


def test_a_crop_of_a_flat_image_is_flat_and_one_of_a_ramp_is_a_ramp() -> None:
    """Would catch interpolation whose weights do not sum to one, or that reads beyond the edge."""
    flat = data.hardened(np.full((50, 16, 16), 100, np.uint8))
    assert (flat.max(axis=(1, 2)) == flat.min(axis=(1, 2))).all()
    assert len(np.unique(flat[:, 0, 0])) > 20  # brightness differs
    ramp = data.hardened(np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8), (50, 16, 16)).copy()).astype(int)
    assert (np.diff(ramp, axis=2) >= 0).all()
    assert (np.ptp(ramp, axis=1) == 0).all()


@pytest.mark.parametrize("channels", [(), (3,)])
def test_shrinking_is_the_mean_of_every_two_by_two(channels: tuple[int, ...]) -> None:
    """Would catch swapped rows and columns, and mixed colours."""
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, *channels), np.uint8)
    small = data.shrunk(images)
    assert small.shape == (2, 16, 16, *channels)
    assert np.array_equal(small[1, 3, 5], np.floor(images[1, 6:8, 10:12].mean(axis=(0, 1)) + 0.5))


def scores(**linear: list[float]) -> dict[str, dict[int, dict[str, float]]]:
    return {
        arm.replace("_", "-"): {seed: {"linear": value, "knn": value / 2} for seed, value in enumerate(values)}
        for arm, values in linear.items()
    }


def test_intervals_are_scipys_of_means_and_of_paired_differences() -> None:
    """Would catch unpaired differences, and a normal quantile where Student's belongs."""
    made = scores(none=[0.70, 0.72, 0.71], vanilla_own=[0.69, 0.70, 0.70])
    low, high = stats.t.interval(0.95, 2, 0.71, stats.sem([0.70, 0.72, 0.71]))
    assert results.arm_table(made)["none"]["linear_ci95"] == pytest.approx([low, high], abs=1e-4)
    paired = results.differences(made)["vanilla-own - none"]
    interval = stats.ttest_rel([0.69, 0.70, 0.70], [0.70, 0.72, 0.71]).confidence_interval(0.95)
    assert paired["linear_mean"] == pytest.approx(-0.04 / 3, abs=1e-6)
    assert paired["linear_ci95"] == pytest.approx(list(interval), abs=1e-4)
    assert paired["knn_mean"] == pytest.approx(-0.02 / 3, abs=1e-6)


def test_differences_pair_each_arm_with_vanilla_on_the_same_images_only() -> None:
    made = scores(none=[0.7, 0.7], vanilla_own=[0.7, 0.6], vanilla_more=[0.6, 0.7], adainf_own=[0.8, 0.7])
    assert list(results.differences(made)) == [
        *("vanilla-own - none", "vanilla-more - none", "adainf-own - none"),
        "adainf-own - vanilla-own",
    ]


def test_the_plans_augmentation_is_compared_with_itself_without_images_and_without_the_weight() -> None:
    made = scores(none=[0.7, 0.7], none_weak=[0.7, 0.6], weak_more=[0.6, 0.7], adainf_more=[0.8, 0.7])
    found = results.differences(made)
    assert {"adainf-more - weak-more", "adainf-more - none-weak", "weak-more - none-weak"} < found.keys()
    assert found["adainf-more - none-weak"]["linear_mean"] == pytest.approx(0.1)


def test_a_weaker_crop_that_gains_with_inflation_alone_is_an_interaction() -> None:
    """Would catch differences of means over other seeds, and the wrong sign."""
    made = scores(none_crop4=[0.70, 0.71], none_crop35=[0.70, 0.71])
    assert results.interaction(made, 0.04, 0.35) == ""
    made |= scores(vanilla_perfect_crop4=[0.70, 0.72], vanilla_perfect_crop35=[0.72, 0.74])
    assert "with minus without inflation: +2.00 points" in results.interaction(made, 0.04, 0.35)
    assert list(results.differences(made)) == ["vanilla-perfect-crop4 - none-crop4", "vanilla-perfect-crop35 - none-crop35"]


def test_the_figure_is_a_small_png_that_is_the_same_each_time(tmp_path: Path) -> None:
    """Would catch a format that fills the history of the repository, and a date in the file."""
    made = results.arm_table(scores(**{f"arm_{number}": [0.7, 0.72, 0.71] for number in range(20)}))
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        results.draw(made, "Main block", file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[0].stat().st_size <= 60_000


def test_holm_is_the_worked_example() -> None:
    """Holm 1979: p .01 .04 .03 .005 → .03 .06 .06 .02; would catch a missing running maximum."""
    assert results.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_gate_passes_what_is_above_zero_beyond_noise_alone() -> None:
    found = {
        "a": {"linear_mean": 0.02, "linear_ci95": [-0.001, 0.041]},
        "b": {"linear_mean": 0.01, "linear_ci95": [0.002, 0.018]},
    }
    assert results.best(["a", "b"], found) == "b"
    assert results.best(["a"], found) is None


def started(work: Path, output: Path, quick: bool = False, study: type[Study] = FashionMnist) -> Study:
    return study(argparse.Namespace(work=work, output=output, quick=quick, budget_s=None, processes=2))


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("quick", [False, True])
def test_every_block_makes_recipes_that_are_ones(tmp_path: Path, quick: bool, name: str) -> None:
    """Would catch settings that recipes no longer know: cells fail hours later otherwise."""
    study = started(tmp_path, tmp_path, quick, STUDIES[name])
    study.found = {"blocks": {"gate": {"regime": ["hard", "100"]}}}
    for block in study.blocks:
        assert block in results.TITLES
        setups, part = study.block(block)
        assert part == ("validation" if block in ("gate", "pilot") or name == "headroom" else "test")
        assert len({setup.name for setup in setups}) == len(setups)
        for setup in setups:
            recipe = load_recipe(setup.write(study.recipe, tmp_path))
            assert recipe.pretrain.global_batch <= setup.real_images
            assert not isinstance(recipe.generator, Diffusion) or recipe.generator.batch <= setup.real_images
            assert recipe.uses_generated == (setup.arms != ("none",))


def test_headroom_compares_inflation_with_weaker_augmentation_of_the_same_regime(tmp_path: Path) -> None:
    """Would catch a control of other steps or another number of real images."""
    made = scores(none_weak_500_steps3000=[0.5, 0.5], adainf_500_perfect_steps3000=[0.6, 0.6])
    made |= scores(adainf_500_own500_steps3000_share40=[0.5, 0.54], none_weak_500_steps1000=[0.4, 0.4])
    found = started(tmp_path, tmp_path, study=STUDIES["headroom"]).differences("recovery", made)
    assert {pair: row["linear_mean"] for pair, row in found.items()} == {
        "adainf-500-perfect-steps3000 - none-weak-500-steps3000": pytest.approx(0.1),
        "adainf-500-own500-steps3000-share40 - none-weak-500-steps3000": pytest.approx(0.02),
    }


def test_without_a_regime_from_the_gate_nothing_else_is_run(tmp_path: Path) -> None:
    study = started(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="the gate has selected no regime"):
        study.block("main")


def test_scores_of_a_removed_block_are_not_used_for_another(tmp_path: Path) -> None:
    """The results keep block `schedule`, whose setting recipes no longer have."""
    study = started(tmp_path, tmp_path)
    score = {"linear": 0.7, "knn": 0.6}
    study.found = {
        "blocks": {"gate": {"regime": ["hard", "100"], "scores": {}}, "schedule": {"scores": {"none": {"0": score}}}}
    }
    study._restore("main")
    assert not list(tmp_path.rglob("seed-*.json"))


def test_another_machine_resumes_from_the_results(tmp_path: Path) -> None:
    """Would catch cells that are computed again, or scores restored to another arm or seed."""
    first, second = (started(tmp_path / work, tmp_path / "out") for work in "ab")
    setups, part = first.block("gate")
    score = {"linear": 0.7, "knn": 0.6, "commit": "0123456", "date": "2026-01-02", "machine": "here"}
    write_score(score_file(setups[2].run(first.work), "vanilla", 101, part), score)
    first._write("gate", setups, part)
    second.found = json.loads(second.json.read_text())
    second._restore("gate")
    assert json.loads(score_file(setups[2].run(second.work), "vanilla", 101, part).read_text()) == score
    assert len(list(second.work.rglob("seed-*.json"))) == 1
    assert second.found["blocks"]["gate"]["missing"] == 47
