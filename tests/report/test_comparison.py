"""The conclusion of a report against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adainf.evaluation.accuracy import Accuracy, digits_for
from adainf.evaluation.intervals import t_quantile
from adainf.evaluation.scores import Measure
from adainf.report.comparison import (
    LABELS_NOTE,
    NO_TEST_LABELS,
    NONE_WEAK_NOTE,
    OTHER_IMAGES_NOTE,
    compare,
    conclude,
    points,
)

ARMS = ("none", "vanilla", "adainf")


def accuracies(**values: list[float]) -> dict[str, Accuracy]:
    return {arm: Accuracy(tuple(of)) for arm, of in values.items()}


def test_margin_of_several_seeds_is_students_t_of_the_paired_differences() -> None:
    # differences .03, .04, .05: standard deviation .01, standard error .01/√3 = .0057735; t of 2 degrees of freedom is 4.303.
    # Over images 1.96 · √(.81 · .19 + .85 · .15) / √10⁶ = .00104: together √(.02484² + .00104²)
    linear = accuracies(none=[0.80, 0.81, 0.82], adainf=[0.83, 0.85, 0.87])
    one = compare(linear, "adainf", "none", test_images=1_000_000)
    assert one.difference == pytest.approx(0.04)
    assert one.margin == pytest.approx(math.hypot(4.303 * 0.0057735, 1.96 * 5.30471e-4), rel=1e-5)
    assert one.is_significant


def test_two_seeds_have_a_wide_margin() -> None:
    # differences .04 and .06: standard deviation .0141421, standard error .01; t of 1 degree of freedom is 12.706
    one = compare(accuracies(none=[0.80, 0.80], adainf=[0.84, 0.86]), "adainf", "none", test_images=10**8)
    assert one.margin == pytest.approx(0.12706, rel=1e-5)
    assert not one.is_significant


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_equal_seeds_leave_the_margin_of_the_test_set(seeds: int) -> None:
    # √(.9 · .1 / 400) = .015 and √(.8 · .2 / 400) = .02: together .025, however many seeds share the images
    one = compare(accuracies(none=[0.8] * seeds, adainf=[0.9] * seeds), "adainf", "none", test_images=400)
    assert one.margin == pytest.approx(1.96 * 0.025, rel=1e-4)


def test_both_errors_add_up() -> None:
    # √(.81 · .19 / 100 + .85 · .15 / 100) = .0530471, and .0248432 of the seeds
    linear = accuracies(none=[0.80, 0.81, 0.82], adainf=[0.83, 0.85, 0.87])
    one = compare(linear, "adainf", "none", test_images=100)
    assert one.margin == pytest.approx(math.hypot(1.96 * 0.0530471, 0.0248432), rel=1e-4)
    assert not one.is_significant


def test_quantiles_of_students_t() -> None:
    quantile = pytest.importorskip("scipy.stats").t.ppf
    assert [t_quantile(freedom) for freedom in range(1, 31)] == [round(quantile(0.975, n), 3) for n in range(1, 31)]
    assert t_quantile(1000) == t_quantile(30) == 2.042


def test_margin_of_one_seed_is_binomial() -> None:
    # √(.9 · .1 / 400) = .015 and √(.8 · .2 / 400) = .02: together .025
    one = compare(accuracies(none=[0.8], adainf=[0.9]), "adainf", "none", test_images=400)
    assert one.margin == pytest.approx(1.96 * 0.025, rel=1e-4)
    assert one.is_significant


def measures(seeds: list[list[int]]) -> Accuracy:
    return Accuracy.of([Measure.of("linear", np.array(hits, bool), None, {}) for hits in seeds])


def test_arms_are_paired_by_image() -> None:
    """Of 100 images, adainf classifies 4 that none does not, and none 1 that adainf does not: the other 95 add no noise."""
    none, adainf = [1] * 81 + [0] * 19, [0] + [1] * 84 + [0] * 15
    one = compare({"none": measures([none]), "adainf": measures([adainf])}, "adainf", "none", 100)
    # differences of the images: 4 are +1, 1 is -1: variance (5 - 100 · .03²) / 99
    assert one.difference == pytest.approx(0.03)
    assert one.margin == pytest.approx(1.96 * math.sqrt((5 - 100 * 0.03**2) / 99 / 100), rel=1e-4)
    unpaired = compare(accuracies(none=[0.81], adainf=[0.84]), "adainf", "none", 100)
    assert one.margin < unpaired.margin / 2


def test_the_mean_over_seeds_is_paired_by_image() -> None:
    """Images that only one of two seeds classifies count half."""
    none, adainf = measures([[1, 0, 0, 0], [1, 0, 0, 0]]), measures([[1, 1, 0, 0], [1, 0, 0, 0]])
    one = compare({"none": none, "adainf": adainf}, "adainf", "none", 4)
    by_image = np.array([0, 0.5, 0, 0])
    assert one.margin == pytest.approx(
        math.hypot(1.96 * by_image.std(ddof=1) / 2, 12.706 * np.std([0.25, 0], ddof=1) / math.sqrt(2)), rel=1e-4
    )


def test_scores_of_an_older_version_are_not_paired() -> None:
    old = Measure.of("linear", np.array([True, False]), None, {}).model_copy(update={"packed_hits": ""})
    assert old.hits is None
    assert Accuracy.of([old]).hits is None
    assert Accuracy.of([old, Measure.of("linear", np.array([True, True]), None, {})]).hits is None


@given(hits=st.lists(st.booleans(), min_size=1, max_size=40))
def test_hits_survive_their_encoding(hits: list[bool]) -> None:
    measure = Measure.model_validate_json(Measure.of("knn", np.array(hits), 0, {}).model_dump_json())
    assert measure.hits is not None
    assert measure.hits.tolist() == hits
    assert measure.accuracy == pytest.approx(np.mean(hits))


def test_win_over_several_seeds() -> None:
    linear = accuracies(
        none=[0.80, 0.81, 0.82], vanilla=[0.79, 0.79, 0.79], adainf=[0.83, 0.85, 0.87], untrained=[0.5, 0.5, 0.5]
    )
    conclusion = conclude(linear, ARMS, 10_000)
    assert conclusion.outcome == "win"
    # to none 4.303 · .01/√3 = .0248; to vanilla the differences .04, .06, .08 deviate by .02: 4.303 · .02/√3 = .0497;
    # over images 1.96 · √(.81 · .19 + .85 · .15) / 100 = .0104 and 1.96 · √(.79 · .21 + .85 · .15) / 100 = .0106
    assert conclusion.headline == (
        "adainf significantly outperforms every control: 85.00 % linear-probe accuracy, 4.00 points above none (significant, "
        "margin of error 2.69 points) and 6.00 points above vanilla (significant, margin of error 5.08 points)."
    )
    assert conclusion.notes == (
        NONE_WEAK_NOTE,
        "The margin of error is half of the 95 % interval of the difference. It combines 1.96 standard errors of the "
        "difference of independent accuracies over 10,000 test images, which all seeds share, and 4.30 standard errors "
        "(Student's t) of the difference paired by seed over 3 seeds.",
    )


def test_win_with_one_seed_states_what_one_seed_does_not_measure() -> None:
    conclusion = conclude(accuracies(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400)
    assert conclusion.outcome == "win"
    assert "10.0 points above none (significant, margin of error 4.9 points)." in conclusion.headline
    assert "One seed does not measure the variance between seeds" in conclusion.notes[-1]
    assert "400 test images" in conclusion.notes[-1]


def test_a_difference_within_the_margin_of_error_is_no_win() -> None:
    # 1.96 · √(2 · .09/400) ≈ 4.2 points of margin against one point of difference
    conclusion = conclude(accuracies(none=[0.90], vanilla=[0.90], adainf=[0.91]), ARMS, 400)
    assert conclusion.outcome == "no win"
    assert conclusion.headline.startswith(
        "adainf does not significantly outperform every control: 91.0 % linear-probe accuracy, "
        "1.0 point above none (not significant,"
    )


def test_loss_and_tie() -> None:
    conclusion = conclude(accuracies(none=[0.95], vanilla=[0.80], adainf=[0.80]), ARMS, 400)
    # √(.95 · .05/400) = .0109 and .02: together .02278, times 1.96
    assert conclusion.headline == (
        "adainf does not significantly outperform every control: 80.0 % linear-probe accuracy, 15.0 points below none "
        "(significant, margin of error 4.5 points) and equal to vanilla."
    )


def test_beating_only_one_control_is_no_win() -> None:
    linear = accuracies(none=[0.5], vanilla=[0.95], adainf=[0.9])
    assert conclude(linear, ARMS, 10_000).outcome == "no win"


def test_a_gain_from_weaker_augmentation_only_is_no_win() -> None:
    """On CIFAR-10 at 16 px (docs/study.md) it was: the gain would be attributed to the generator."""
    linear = accuracies(none=[0.80] * 3, vanilla=[0.79] * 3, adainf=[0.86] * 3, **{"none-weak": [0.86] * 3})
    conclusion = conclude(linear, (*ARMS, "none-weak"), 10_000)
    assert conclusion.outcome == "no win"
    assert "equal to none-weak" in conclusion.headline
    unaware = conclude(linear, ARMS, 10_000)
    assert unaware.outcome == "win"
    assert NONE_WEAK_NOTE in unaware.notes
    better = conclude({**linear, "none-weak": Accuracy((0.82,) * 3)}, (*ARMS, "none-weak"), 10_000)
    assert better.outcome == "win"
    assert NONE_WEAK_NOTE not in better.notes


def test_identical_seeds_that_tie_are_equal() -> None:
    equal = compare(accuracies(none=[0.7, 0.7], adainf=[0.7, 0.7]), "adainf", "none", 100)
    assert equal.is_equal
    assert not equal.is_significant


@pytest.mark.parametrize(
    ("linear", "arms", "start"),
    [
        ({}, ARMS, "The data have no labels, so no probe was trained:"),
        (accuracies(none=[0.9]), ("none",), "Only none was trained: 90.0 % linear-probe accuracy"),
        (accuracies(adainf=[0.9]), ("adainf",), "adainf has no control in this run: 90.0 %"),
        (
            accuracies(none=[0.9], vanilla=[0.8]),
            ("none", "vanilla"),
            "This run has no arm adainf. vanilla: 80.0 % linear-probe accuracy, 10.0 points below none",
        ),
    ],
)
def test_runs_without_a_comparison(linear: dict[str, Accuracy], arms: tuple[str, ...], start: str) -> None:
    conclusion = conclude(linear, arms, 400)
    assert conclusion.outcome == "open"
    assert conclusion.headline.startswith(start)


def test_the_reason_of_no_probe_is_named() -> None:
    conclusion = conclude({}, ARMS, 0, no_probe_reason=NO_TEST_LABELS)
    assert conclusion.outcome == "open"
    assert (
        conclusion.headline
        == "The data have no labelled test images, so no probe was trained: this run does not rank the arms."
    )


def test_arms_that_do_not_beat_random_weights_are_named() -> None:
    conclusion = conclude(accuracies(none=[0.7], vanilla=[0.8], adainf=[0.95], untrained=[0.8]), ARMS, 400)
    assert conclusion.outcome == "win"
    assert conclusion.notes[-1] == "none and vanilla are not above the untrained encoder (80.0 %)."


def test_labels_used_for_the_generated_images_are_noted() -> None:
    assert conclude(accuracies(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400, used_labels=True).notes[-1] == LABELS_NOTE
    both = conclude(accuracies(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400, used_labels=True, other_images=True)
    assert both.notes[-2:] == (LABELS_NOTE, OTHER_IMAGES_NOTE)


def test_numbers_as_text() -> None:
    assert points(0.0002, 1) == "under 0.1 points"
    assert points(-0.01, 1) == "1.0 point"
    assert points(0.0, 1) == "0.0 points"
    assert (digits_for(360), digits_for(10_000)) == (1, 2)
    assert Accuracy((0.5,)).std is None
    assert Accuracy((0.0, 1.0)).std == pytest.approx(math.sqrt(0.5))


def test_verified_is_reported_beside_adainf_and_does_not_win_in_its_place() -> None:
    """Would catch the result of the tuned arm reported as that of the policy."""
    linear = accuracies(none=[0.80], adainf=[0.80], verified=[0.95])
    conclusion = conclude(linear, ("none", "adainf", "verified"), 400)
    assert conclusion.outcome == "no win"
    assert conclusion.headline.startswith("adainf does not significantly outperform every control")
    assert conclusion.notes[0].startswith(
        "verified, tuned by the probe runs: 95.0 % linear-probe accuracy, 15.0 points above none"
    )
