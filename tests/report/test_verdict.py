"""The verdict's sentences against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from adainf.report.verdict import LABELS_NOTE, Score, compare, digits_for, judge, points

ARMS = ("none", "vanilla", "adainf")


def scores(**values: list[float]) -> dict[str, Score]:
    return {arm: Score(tuple(of)) for arm, of in values.items()}


def test_noise_of_several_seeds_is_two_standard_errors_of_the_difference() -> None:
    # deviations .01 and .02, so standard errors .01/√3 and .02/√3; the difference's is √(.0001 + .0004)/√3 = .01291
    linear = scores(none=[0.80, 0.81, 0.82], adainf=[0.83, 0.85, 0.87])
    one = compare(linear, "adainf", "none", test_images=100)
    assert one.difference == pytest.approx(0.04)
    assert one.noise == pytest.approx(2 * 0.0129099, rel=1e-5)
    assert one.is_clear


def test_noise_of_one_seed_is_binomial() -> None:
    # √(.9 · .1 / 400) = .015 and √(.8 · .2 / 400) = .02: together .025
    one = compare(scores(none=[0.8], adainf=[0.9]), "adainf", "none", test_images=400)
    assert one.noise == pytest.approx(0.05)
    assert one.is_clear


def test_win_over_several_seeds() -> None:
    linear = scores(none=[0.80, 0.81, 0.82], vanilla=[0.80, 0.80, 0.80], adainf=[0.83, 0.85, 0.87], untrained=[0.5, 0.5, 0.5])
    verdict = judge(linear, ARMS, 1000)
    assert verdict.outcome == "win"
    # against vanilla, whose deviation is 0: 2 · .02/√3 = .0231
    assert verdict.headline == (
        "adainf wins here: 85.0 % on the linear probe, 4.0 points above none (more than the noise of 2.6 points) and "
        "5.0 points above vanilla (more than the noise of 2.3 points)."
    )
    assert verdict.notes == (
        "Noise is two standard errors of the difference over 3 seeds; all of them are judged on the same 1,000 test images.",
    )


def test_win_with_one_seed_says_what_one_seed_cannot_show() -> None:
    verdict = judge(scores(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400)
    assert verdict.outcome == "win"
    assert "10.0 points above none (more than the noise of 5.0 points)." in verdict.headline
    assert "one seed cannot show more" in verdict.notes[0]
    assert "400 test images" in verdict.notes[0]


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


def test_identical_seeds_have_no_noise_and_a_tie_stays_a_tie() -> None:
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


def test_arms_that_do_not_beat_random_weights_are_named() -> None:
    verdict = judge(scores(none=[0.7], vanilla=[0.8], adainf=[0.95], untrained=[0.8]), ARMS, 400)
    assert verdict.outcome == "win"
    assert verdict.notes[-1] == "none and vanilla are not above the untrained encoder (80.0 %)."


def test_labels_used_for_the_generated_images_are_said_with_the_verdict() -> None:
    assert judge(scores(none=[0.8], adainf=[0.9]), ("none", "adainf"), 400, used_labels=True).notes[-1] == LABELS_NOTE


def test_numbers_in_words() -> None:
    assert points(0.0002, 1) == "under 0.1 points"
    assert points(-0.01, 1) == "1.0 point"
    assert points(0.0, 1) == "0.0 points"
    assert (digits_for(360), digits_for(10_000)) == (1, 2)
    assert Score((0.5,)).deviation is None
    assert Score((0.0, 1.0)).deviation == pytest.approx(math.sqrt(0.5))
