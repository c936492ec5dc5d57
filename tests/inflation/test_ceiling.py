"""The ceiling's arms, its verdict and what it prints."""

from __future__ import annotations

import pytest

from adainf.augment.profiles import default_views
from adainf.inflation.ceiling import Ceiling, Gain, lines, settings, verdict
from adainf.recipe import Augmentation, Plan

DEFAULT = default_views(Augmentation())


@pytest.mark.parametrize(
    ("real", "held_out", "largest_share", "share"), [(500, 500, 0.8, 0.5), (500, 10_000, 0.6, 0.6), (900, 100, 0.8, 0.1)]
)
def test_perfect_images_weigh_as_real_ones_up_to_the_largest_share(
    real: int, held_out: int, largest_share: float, share: float
) -> None:
    """Would catch the plan's 10 for a real image, which leaves a doubled set 9 % of further images."""
    none, weak, inflated = settings(real, held_out, Plan(max_generated_share=largest_share), DEFAULT, "simclr")
    assert settings(real, held_out, Plan(), DEFAULT, "simclr", labelled=True)[3].views == weak.views
    assert held_out / (inflated.real_weight * real + held_out) == pytest.approx(share, abs=1e-3)
    assert (none.views, none.weights, weak.weights) == (DEFAULT, {}, {})
    assert weak.views == inflated.views
    assert weak.views[0].min_scale > DEFAULT[0].min_scale


@pytest.mark.parametrize(
    ("difference", "margin", "is_accuracy", "expected"),
    [
        *((0.03, 0.01, True, "worthwhile"), (0.001, 0.0005, False, "worthwhile")),
        *((0.0, 0.009, True, "not worthwhile"), (-0.2, 0.1, False, "not worthwhile")),
        *((0.0, 0.03, True, "undecided"), (0.0, 0.009, False, "undecided"), (-0.01, 0.02, True, "undecided")),
    ],
)
def test_the_verdict_is_that_of_the_interval(difference: float, margin: float, is_accuracy: bool, expected: str) -> None:
    assert verdict(Gain(over="none-weak", difference=difference, margin=margin), is_accuracy) == expected


def found(**changes: object) -> Ceiling:
    scores = {"none": {"0": 0.5, "1": 0.52}, "none-weak": {"0": 0.52, "1": 0.52}, "inflated": {"0": 0.57, "1": 0.57}}
    gains = [Gain(over="none-weak", difference=0.05, margin=0.021), Gain(over="none", difference=0.06, margin=0.03)]
    made = Ceiling(
        real_images=500,
        held_out_images=10_000,
        steps=6000,
        seeds=[0, 1],
        judged_by="linear",
        validation_images=5000,
        scores=scores,
        knn_scores=scores,
        gains=gains,
        knn_gains=gains,
        verdict="worthwhile",
        fit_seconds=None,
    )
    return made.model_copy(update=changes)


def test_the_conclusion_is_one_sentence_with_its_interval() -> None:
    first, second = lines(found())
    assert first == (
        "ceiling: 10,000 further real images gain 500 real ones +5.0 (+2.9 to +7.1) points of the linear probe over none-weak "
        "(95 %; 2 draws and seeds, 6,000 steps, 5,000 validation images): images of a good generator can help, so a fit is "
        "worth while"
    )
    assert "none 51.0, none-weak 52.0, inflated 57.0" in second
    assert "+6.0 (+3.0 to +9.0) over none, by nearest neighbours +5.0 (+2.9 to +7.1) over none-weak" in second


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (90, "1.5 min"), (5400, "1.5 h"), (250_000, "69 h")])
def test_the_cost_of_the_fit_is_printed_where_it_is_known(seconds: float, text: str) -> None:
    assert lines(found(fit_seconds=seconds))[-1] == f"  the fit of this recipe takes about {text} on this machine"


def test_without_labels_the_losses_are_printed_in_nats() -> None:
    scores = {arm: {"0": -2.5, "1": -2.5} for arm in ("none", "none-weak", "inflated")}
    gains = [Gain(over="none-weak", difference=-0.01, margin=0.002)] * 2
    text = lines(found(judged_by="infonce", scores=scores, knn_scores={}, knn_gains=[], gains=gains, verdict="not worthwhile"))
    assert "-0.010 (-0.012 to -0.008) nats of held-out InfoNCE (no labels of two classes) over none-weak" in text[0]
    assert "even perfect images would not help" in text[0]
    assert "none 2.500" in text[1]
    assert "neighbours" not in text[1]
