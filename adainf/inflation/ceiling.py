"""The ceiling of inflation: what further *real* images gain, before a generator is fitted.

No generator draws better images than real ones. So the gain of some real images from others bounds the gain from as many
generated images, and headroom that is not there cannot be recovered. The gain is that over arm `none-weak`, as weaker
augmentation may gain without further images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from adainf.augment.profiles import Views
from adainf.inflation.policy import make_plan
from adainf.inflation.record import Inputs, SourceStats
from adainf.inflation.search import NONE, NONE_WEAK, Setting
from adainf.pipeline.records import Record
from adainf.recipe import Plan

INFLATED, HELD_OUT = "inflated", "held-out"
"""The arm with further real images, and the source of these."""
SAME_CLASS, SAME_CLASS_PROBABILITY = "same-class", 0.5
"""The arm that replaces the second view by one of another real image of the same class, with this probability."""
MIN_GAIN = 0.01
"""Accuracy: a fit whose gain is certainly smaller is not worth while."""

Verdict = Literal["worthwhile", "not worthwhile", "undecided"]


class Gain(Record):
    """Mean score of `inflated` minus that of `over`, paired by draw and seed, and by image where the scores are accuracies."""

    over: str
    difference: float
    margin: float
    """Half of its 95 % interval."""


class Ceiling(Record):
    """What `adainf ceiling` reports."""

    real_images: int
    """Those that stand for the real images of a run."""
    held_out_images: int
    """Those that stand for the images of a perfect generator."""
    steps: int
    seeds: list[int]
    """Each has its own draw of the real images, and its own initial weights."""
    judged_by: Literal["linear", "infonce"]
    """Accuracy of a linear probe (0..1), or InfoNCE of held-out images in nats, as a gain."""
    validation_images: int
    scores: dict[str, dict[str, float]]
    """By arm and seed, higher is better."""
    knn_scores: dict[str, dict[str, float]]
    """By arm and seed; empty without labels."""
    gains: list[Gain]
    """Over none-weak, over none; higher is better."""
    knn_gains: list[Gain]
    positives: Gain | None = None
    """Of `same-class`, the ceiling of positives; None without labels."""
    verdict: Verdict
    fit_seconds: float | None
    """Estimated time of the fits of the recipe on this machine; None where it is not known."""


def settings(
    real_images: int, held_out_images: int, rule: Plan, default: Views, method: str, labelled: bool = False
) -> list[Setting]:
    """The arms: `none`, `none-weak`, `inflated` by perfect images, which weigh as much as real ones, within
    `max_generated_share`, and with labels `same-class`. All but `none` have the plan's augmentation for so many images of
    quality score 1."""
    sources = {HELD_OUT: SourceStats(images=held_out_images)}
    inputs = Inputs(real_images=real_images, sources=sources, reference_images=real_images, method=method)
    weak = make_plan(inputs, rule, default).views
    least = held_out_images / real_images * (1 - rule.max_generated_share) / rule.max_generated_share
    weight = max(1.0, float(f"{least:.3g}"))
    return [
        Setting(name=NONE, real_weight=1.0, weights={}, views=(default[0], default[1])),
        Setting(name=NONE_WEAK, real_weight=1.0, weights={}, views=weak),
        Setting(name=INFLATED, real_weight=weight, weights={HELD_OUT: 1.0}, views=weak),
        *([Setting(name=SAME_CLASS, real_weight=1.0, weights={}, views=weak)] if labelled else []),
    ]


def verdict(gain: Gain, is_accuracy: bool) -> Verdict:
    """Worthwhile: the interval is above zero. Not worthwhile: it is below `MIN_GAIN`, or below zero for scores in nats."""
    if gain.difference - gain.margin > 0:
        return "worthwhile"
    return "not worthwhile" if gain.difference + gain.margin < (MIN_GAIN if is_accuracy else 0) else "undecided"


_ADVICE: Mapping[Verdict, str] = {
    "worthwhile": "images of a good generator can help, so a fit is worth while",
    "not worthwhile": "even perfect images would not help, so a fit is not worth while: use none-weak, or train longer",
    "undecided": "whether a fit is worth while is not decided: raise --seeds, or bring more validation images",
}


def lines(found: Ceiling) -> list[str]:
    """The conclusion in one sentence, then the arms and the cost of the fit."""
    is_accuracy = found.judged_by == "linear"
    unit = "points of the linear probe" if is_accuracy else "nats of held-out InfoNCE (no labels of two classes)"
    data = f"{len(found.seeds)} draws and seeds, {found.steps:,} steps, {found.validation_images:,} validation images"
    first, *others = found.gains
    text = [
        f"ceiling: {found.held_out_images:,} further real images gain {found.real_images:,} real ones "
        f"{_interval(first, is_accuracy)} {unit} over {first.over} (95 %; {data}): {_ADVICE[found.verdict]}"
    ]
    means = {arm: sum(values.values()) / len(values) for arm, values in found.scores.items()}
    arms = ", ".join(f"{arm} {100 * mean:.1f}" if is_accuracy else f"{arm} {-mean:.3f}" for arm, mean in means.items())
    over = [f"{_interval(gain, is_accuracy)} over {gain.over}" for gain in others]
    over += [f"by nearest neighbours {_interval(gain, True)} over {gain.over}" for gain in found.knn_gains[:1]]
    text.append(f"  {arms}; inflated {', '.join(over)}")
    if found.positives is not None:
        text.append(
            f"  positives: another real image of the class as second view (p = {SAME_CLASS_PROBABILITY:g}) gains "
            f"{_interval(found.positives, True)} over {found.positives.over}"
        )
    if found.fit_seconds is not None:
        text.append(f"  the fit of this recipe takes about {_duration(found.fit_seconds)} on this machine")
    return text


def _interval(gain: Gain, is_accuracy: bool) -> str:
    factor, form = (100, "+.1f") if is_accuracy else (1, "+.3f")
    middle, low, high = (
        factor * value for value in (gain.difference, gain.difference - gain.margin, gain.difference + gain.margin)
    )
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"
