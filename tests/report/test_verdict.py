"""The verdict's sentences against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from adainf.report.verdict import (
    LABELS_NOTE,
    NO_TEST_LABELS,
    NONE_WEAK_NOTE,
    OTHER_IMAGES_NOTE,
    Score,
    compare,
    digits_for,
    judge,
    points,
    t_quantile,
)

ARMS = ("none", "vanilla", "adainf")


def scores(**values: list[float]) -> dict[str, Score]:
    return {arm: Score(tuple(of)) for arm, of in values.items()}


def test_noise_of_several_seeds_is_students_t_of_the_paired_differences() -> None:
    # differences .03, .04, .05: deviation .01, standard error .01/√3 = .0057735; t of 2 degrees of freedom is 4.303
    linear = scores(none=[0.80, 0.81, 0.82], adainf=[0.83, 0.85, 0.87])
    one = compare(linear, "adainf", "none", test_images=10_000)
    assert one.difference == pytest.approx(0.04)
    assert one.noise == pytest.approx(4.303 * 0.0057735, rel=1e-5)
    assert one.is_clear


def test_two_seeds_show_little() -> None:
    # differences .04 and .06: deviation .0141421, standard error .01; t of 1 degree of freedom is 12.706
    one = compare(scores(none=[0.80, 0.80], adainf=[0.84, 0.86]), "adainf", "none", test_images=10_000)
    assert one.noise == pytest.approx(0.12706)
    assert not one.is_clear


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_seeds_that_agree_leave_the_noise_of_the_test_set(seeds: int) -> None:
    # √(.9 · .1 / 400) = .015 and √(.8 · .2 / 400) = .02: together .025, however many seeds share the images
    one = compare(scores(none=[0.8] * seeds, adainf=[0.9] * seeds), "adainf", "none", test_images=400)
    assert one.noise == pytest.approx(0.05)


def test_a_small_test_set_outweighs_the_seeds() -> None:
    # √(.81 · .19 / 100 + .85 · .15 / 100) = .0530471, above the .0248 of the seeds
    linear = scores(none=[0.80, 0.81, 0.82], adainf=[0.83, 0.85, 0.87])
    one = compare(linear, "adainf", "none", test_images=100)
    assert one.noise == pytest.approx(2 * 0.0530471, rel=1e-5)
    assert not one.is_clear


def test_quantiles_of_students_t() -> None:
    quantile = pytest.importorskip("scipy.stats").t.ppf
    assert [t_quantile(freedom) for freedom in range(1, 31)] == [round(quantile(0.975, n), 3) for n in range(1, 31)]
    assert t_quantile(1000) == t_quantile(30) == 2.042


def test_noise_of_one_seed_is_binomial() -> None:
    # √(.9 · .1 / 400) = .015 and √(.8 · .2 / 400) = .02: together .025
    one = compare(scores(none=[0.8], adainf=[0.9]), "adainf", "none", test_images=400)
    assert one.noise == pytest.approx(0.05)
    assert one.is_clear


def test_win_over_several_seeds() -> None:
    linear = scores(none=[0.80, 0.81, 0.82], vanilla=[0.80, 0.80, 0.80], adainf=[0.83, 0.85, 0.87], untrained=[0.5, 0.5, 0.5])
    verdict = judge(linear, ARMS, 10_000)
    assert verdict.outcome == "win"
    # to none 4.303 · .01/√3 = .0248; to vanilla the differences .03, .05, .07 deviate by .02: 4.303 · .02/√3 = .0497
    assert verdict.headline == (
        "adainf wins here: 85.00 % on the linear probe, 4.00 points above none (more than the noise of 2.48 points) and "
        "5.00 points above vanilla (more than the noise of 4.97 points)."
    )
    assert verdict.notes == (
        NONE_WEAK_NOTE,
        "Noise is the larger of two: that of the seeds, 4.30 standard errors (Student's t, 95 %) of the difference paired by "
        "seed over 3 seeds; and that of the test set, two binomial standard errors of the difference between two accuracies "
        "on the 10,000 test images that all seeds share.",
    )


def test_win_with_one_seed_says_what_one_seed_cannot_show() -> None:
    verdict = judge(scores(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400)
    assert verdict.outcome == "win"
    assert "10.0 points above none (more than the noise of 5.0 points)." in verdict.headline
    assert "one seed cannot show more" in verdict.notes[-1]
    assert "400 test images" in verdict.notes[-1]


def test_a_lead_within_the_noise_is_no_win() -> None:
    # 2 · √(2 · .09/400) ≈ 4.2 points of noise against one point of difference
    verdict = judge(scores(none=[0.90], vanilla=[0.90], adainf=[0.91]), ARMS, 400)
    assert verdict.outcome == "no win"
    assert verdict.headline.startswith("adainf does not win here: 91.0 % on the linear probe, 1.0 point above none (within")


def test_loss_and_tie() -> None:
    verdict = judge(scores(none=[0.95], vanilla=[0.80], adainf=[0.80]), ARMS, 400)
    # √(.95 · .05/400) = .0109 and .02: together .02278
    assert verdict.headline == (
        "adainf does not win here: 80.0 % on the linear probe, 15.0 points below none (more than the noise of 4.6 points) "
        "and level with vanilla."
    )


def test_beating_one_control_alone_is_no_win() -> None:
    linear = scores(none=[0.5], vanilla=[0.95], adainf=[0.9])
    assert judge(linear, ARMS, 10_000).outcome == "no win"


def test_a_gain_that_weaker_augmentation_has_alone_is_no_win() -> None:
    """On CIFAR-10 at 16 px (docs/study.md) it was: a generator would be praised for what it did not do."""
    linear = scores(none=[0.80] * 3, vanilla=[0.79] * 3, adainf=[0.86] * 3, **{"none-weak": [0.86] * 3})
    verdict = judge(linear, (*ARMS, "none-weak"), 10_000)
    assert verdict.outcome == "no win"
    assert "level with none-weak" in verdict.headline
    unaware = judge(linear, ARMS, 10_000)
    assert unaware.outcome == "win"
    assert NONE_WEAK_NOTE in unaware.notes
    better = judge({**linear, "none-weak": Score((0.82,) * 3)}, (*ARMS, "none-weak"), 10_000)
    assert better.outcome == "win"
    assert NONE_WEAK_NOTE not in better.notes


def test_identical_seeds_that_tie_stay_a_tie() -> None:
    level = compare(scores(none=[0.7, 0.7], adainf=[0.7, 0.7]), "adainf", "none", 100)
    assert level.is_level
    assert not level.is_clear


@pytest.mark.parametrize(
    ("linear", "arms", "start"),
    [
        ({}, ARMS, "The data have no labels, so no probe:"),
        (scores(none=[0.9]), ("none",), "Only none was trained: 90.0 % on the linear probe"),
        (scores(adainf=[0.9]), ("adainf",), "adainf has no control here: 90.0 %"),
        (
            scores(none=[0.9], vanilla=[0.8]),
            ("none", "vanilla"),
            "There is no adainf arm here. vanilla: 80.0 % on the linear probe, 10.0 points below none",
        ),
    ],
)
def test_runs_that_cannot_tell(linear: dict[str, Score], arms: tuple[str, ...], start: str) -> None:
    verdict = judge(linear, arms, 400)
    assert verdict.outcome == "open"
    assert verdict.headline.startswith(start)


def test_what_the_data_lack_is_named() -> None:
    verdict = judge({}, ARMS, 0, lacking=NO_TEST_LABELS)
    assert verdict.outcome == "open"
    assert verdict.headline == "The data have no labelled test images, so no probe: this run cannot say which arm is better."


def test_arms_that_do_not_beat_random_weights_are_named() -> None:
    verdict = judge(scores(none=[0.7], vanilla=[0.8], adainf=[0.95], untrained=[0.8]), ARMS, 400)
    assert verdict.outcome == "win"
    assert verdict.notes[-1] == "none and vanilla are not above the untrained encoder (80.0 %)."


def test_labels_used_for_the_generated_images_are_said_with_the_verdict() -> None:
    assert judge(scores(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400, used_labels=True).notes[-1] == LABELS_NOTE
    both = judge(scores(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400, used_labels=True, other_images=True)
    assert both.notes[-2:] == (LABELS_NOTE, OTHER_IMAGES_NOTE)


def test_numbers_in_words() -> None:
    assert points(0.0002, 1) == "under 0.1 points"
    assert points(-0.01, 1) == "1.0 point"
    assert points(0.0, 1) == "0.0 points"
    assert (digits_for(360), digits_for(10_000)) == (1, 2)
    assert Score((0.5,)).deviation is None
    assert Score((0.0, 1.0)).deviation == pytest.approx(math.sqrt(0.5))


def test_verified_is_told_beside_adainf_and_does_not_win_in_its_place() -> None:
    """Would catch a verdict of the tuned arm that is given out for that of the policy."""
    linear = scores(none=[0.80], adainf=[0.80], verified=[0.95])
    verdict = judge(linear, ("none", "adainf", "verified"), 400)
    assert verdict.outcome == "no win"
    assert verdict.headline.startswith("adainf does not win here")
    assert verdict.notes[0].startswith("verified, as the probes chose: 95.0 % on the linear probe, 15.0 points above none")
