"""Comparison of the arms by linear-probe accuracy: differences, their margins of error, and the conclusion of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from adainf.evaluation.accuracy import Accuracy, digits_for, percent
from adainf.evaluation.intervals import NORMAL_QUANTILE, half_width, t_quantile

CONTROLS = ("none", "none-weak", "vanilla")
CONTROLS_OF_POSITIVES = (*CONTROLS, "third-view", "random-positives")
POSITIVES = ("adainf-positives", "positives")

LABELS_NOTE = "The generated images depend on labels, so this run is no evidence for inflation without labels."

OTHER_IMAGES_NOTE = (
    "The generator was fitted on images other than this run's real ones, so this run is no evidence for inflation from the "
    "real images only."
)

NONE_WEAK_NOTE = (
    "The gain from weaker augmentation without generated images was not measured: add none-weak to the arms of the recipe."
)

NO_LABELS = "no labels"
NO_TEST_LABELS = "no labelled test images"
ONE_CLASS = "fewer than two labelled classes to train on"
"""Why no encoder can be probed, as an object of "The data have ...\""""

Outcome = Literal["win", "no win", "open"]


@dataclass(frozen=True)
class Comparison:
    """The linear-probe accuracy of one arm minus that of another."""

    other: str
    difference: float
    """-1..1; positive where the arm is above the other."""
    margin: float
    """Margin of error: half of the 95 % interval of the difference; see `compare`."""

    @property
    def is_equal(self) -> bool:
        return math.isclose(self.difference, 0.0, abs_tol=1e-12)

    @property
    def is_significant(self) -> bool:
        """Whether the difference exceeds its margin of error."""
        return not self.is_equal and abs(self.difference) > self.margin


@dataclass(frozen=True)
class Conclusion:
    """The result of a run. `outcome` is `open` where nothing can be compared."""

    outcome: Outcome
    headline: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join((self.headline, *self.notes))


def points(value: float, digits: int) -> str:
    """The absolute value of a difference in percentage points; a nonzero difference is never printed as 0."""
    shown = f"{100 * abs(value):.{digits}f}"
    if value and not float(shown):
        shown = f"under {10**-digits:.{digits}f}"
    return f"{shown} point" if shown == f"{1:.{digits}f}" else f"{shown} points"


def compare(accuracies: Mapping[str, Accuracy], arm: str, other: str, test_images: int) -> Comparison:
    """`arm` against `other` on the linear probe.

    The margin of error is the root of the sum of two squares. Between test images: 1.96 standard errors of the difference,
    paired by image. Between seeds, where there are several: half of the 95 % Student's t interval of the mean difference,
    paired by seed. The interaction of images and seeds is in both, so the margin is slightly too large.
    """
    one, two = accuracies[arm], accuracies[other]
    differences = [a - b for a, b in zip(one.values, two.values, strict=True)]
    between_seeds = half_width(differences) if len(differences) > 1 else 0.0
    margin = math.hypot(NORMAL_QUANTILE * _error_between_images(one, two, test_images), between_seeds)
    return Comparison(other, one.mean - two.mean, margin)


def _error_between_images(one: Accuracy, two: Accuracy, test_images: int) -> float:
    """The standard error of the difference over test images. Without hits, the errors of the arms count as independent."""
    if one.hits is None or two.hits is None:
        return math.hypot(one.binomial_error(test_images), two.binomial_error(test_images))
    difference_by_image = one.hits.mean(axis=0) - two.hits.mean(axis=0)
    return float(difference_by_image.std(ddof=1)) / math.sqrt(test_images) if test_images > 1 else 1.0


def conclude(
    linear: Mapping[str, Accuracy],
    arms: Sequence[str],
    test_images: int,
    used_labels: bool = False,
    no_probe_reason: str = NO_LABELS,
    other_images: bool = False,
) -> Conclusion:
    """The conclusion on the arms of a recipe, by linear-probe accuracy.

    `linear` contains the accuracies of the arms and optionally of `untrained`. It is empty where no encoder could be probed
    because the data have `no_probe_reason`. `adainf` wins only if it is significantly above every control that was trained.
    `used_labels` and `other_images`: the generated images depend on labels, or on images other than the real ones, which
    weakens the evidence of a win.
    """
    conclusion = _conclude(linear, arms, test_images, no_probe_reason)
    caveats = [note for note, applies in ((LABELS_NOTE, used_labels), (OTHER_IMAGES_NOTE, other_images)) if applies]
    return replace(conclusion, notes=(*conclusion.notes, *caveats))


def _conclude(linear: Mapping[str, Accuracy], arms: Sequence[str], test_images: int, no_probe_reason: str) -> Conclusion:
    if not linear:
        return Conclusion("open", f"The data have {no_probe_reason}, so no probe was trained: this run does not rank the arms.")
    digits = digits_for(test_images)
    subject = next((arm for arm in ("adainf", "verified", *POSITIVES, "vanilla") if arm in arms), None)
    controls = _controls_of(subject, arms)
    untrained = _untrained_note(linear, arms, digits)
    if subject is None:
        headline = f"Only none was trained: {_accuracy(linear['none'], digits)}, without an inflated arm to compare with."
        return Conclusion("open", headline, untrained)
    if not controls:
        headline = (
            f"{subject} has no control in this run: {_accuracy(linear[subject], digits)}, which does not measure the effect of "
            "inflation without arm none."
        )
        return Conclusion("open", headline, untrained)

    def against_controls(arm: str) -> tuple[str, bool]:
        """The differences as text, and whether the arm is significantly above every control."""
        comparisons = [compare(linear, arm, control, test_images) for control in _controls_of(arm, arms)]
        text = f"{_accuracy(linear[arm], digits)}, {_and([_clause(one, digits) for one in comparisons])}."
        return text, all(one.difference > 0 and one.is_significant for one in comparisons)

    differences, wins = against_controls(subject)
    verified = (f"verified, tuned by the probe runs: {against_controls('verified')[0]}",) if "verified" in arms else ()
    compared = [arm for arm in POSITIVES if arm in arms and arm != subject and _controls_of(arm, arms)]
    others = tuple(f"{arm}: {against_controls(arm)[0]}" for arm in compared)
    verified = (*verified, *others)
    paired = all(linear[arm].hits is not None for arm in (subject, *controls))
    notes = (_margin_note(len(linear[subject].values), test_images, paired), *untrained)
    if subject != "adainf":
        return Conclusion("open", f"This run has no arm adainf. {subject}: {differences}", (*others, *notes))
    if not wins:
        return Conclusion(
            "no win", f"adainf does not significantly outperform every control: {differences}", (*verified, *notes)
        )
    not_measured = () if "none-weak" in controls else (NONE_WEAK_NOTE,)
    headline = f"adainf significantly outperforms every control: {differences}"
    return Conclusion("win", headline, (*not_measured, *verified, *notes))


def _controls_of(arm: str | None, arms: Sequence[str]) -> list[str]:
    """The controls among the trained arms; those of generated positives have more."""
    controls = CONTROLS_OF_POSITIVES if arm in POSITIVES else CONTROLS
    return [control for control in controls if control in arms and control != arm]


def _accuracy(accuracy: Accuracy, digits: int) -> str:
    return f"{percent(accuracy.mean, digits)} % linear-probe accuracy"


def _clause(one: Comparison, digits: int) -> str:
    if one.is_equal:
        return f"equal to {one.other}"
    side = "above" if one.difference > 0 else "below"
    significance = "significant" if one.is_significant else "not significant"
    return f"{points(one.difference, digits)} {side} {one.other} ({significance}, margin of error {points(one.margin, digits)})"


def _margin_note(seeds: int, test_images: int, paired: bool) -> str:
    between_images = (
        f"1.96 standard errors of the difference {'paired by image' if paired else 'of independent accuracies'} over "
        f"{test_images:,} test images"
    )
    if seeds == 1:
        return (
            f"The margin of error is half of the 95 % interval of the difference: {between_images}. One seed does not measure "
            "the variance between seeds."
        )
    return (
        f"The margin of error is half of the 95 % interval of the difference. It combines {between_images}, which all seeds "
        f"share, and {t_quantile(seeds - 1):.2f} standard errors (Student's t) of the difference paired by seed over {seeds} "
        "seeds."
    )


def _untrained_note(linear: Mapping[str, Accuracy], arms: Sequence[str], digits: int) -> tuple[str, ...]:
    """Names the arms whose pretraining does not improve on random weights, whatever the outcome."""
    untrained = linear.get("untrained")
    if untrained is None:
        return ()
    not_above = [arm for arm in arms if linear[arm].mean <= untrained.mean]
    if not not_above:
        return ()
    verb = "is" if len(not_above) == 1 else "are"
    return (f"{_and(not_above)} {verb} not above the untrained encoder ({percent(untrained.mean, digits)} %).",)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
