"""Whether `adainf` wins, in plain words: differences of accuracies against the noise that they carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from adainf.evaluation.intervals import Interval, student, t_quantile, wilson

CONTROLS = ("none", "none-weak", "vanilla")

LABELS_NOTE = "Labels were used in making the generated images, so this is no evidence for inflation without labels."

OTHER_IMAGES_NOTE = (
    "The generator was fitted on other images than this run's real ones, so this is no evidence for inflation from these alone."
)

NONE_WEAK_NOTE = (
    "What weaker augmentation gains without any generated image is not known here: add none-weak to the recipe's arms."
)

NO_LABELS = "no labels"
NO_TEST_LABELS = "no labelled test images"
ONE_CLASS = "fewer than two labelled classes to train on"
"""What the data lack where no encoder can be probed: "The data have ...\""""

Outcome = Literal["win", "no win", "open"]


@dataclass(frozen=True)
class Score:
    """One accuracy, 0..1, of one arm: a value per seed, in the same order of seeds for all arms."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def interval(self, test_images: int) -> Interval:
        """95 %, of the mean over several seeds; for one seed that of an accuracy measured on so many test images."""
        return wilson(self.mean, test_images) if self.deviation is None else student(self.values)

    def standard_error(self, test_images: int) -> float:
        """Of the mean over several seeds; for one seed that of an accuracy measured on so many test images."""
        if self.deviation is not None:
            return self.deviation / math.sqrt(len(self.values))
        return self.binomial_error(test_images)

    def binomial_error(self, test_images: int) -> float:
        """Standard error of an accuracy on so many test images. More seeds do not shrink it: they share the images."""
        return math.sqrt(self.mean * (1 - self.mean) / max(test_images, 1))


@dataclass(frozen=True)
class Comparison:
    """The linear probe of one arm against that of another."""

    other: str
    difference: float
    """0..1; positive where the arm is above the other."""
    noise: float
    """What a difference must exceed to be more than chance; see `compare`."""

    @property
    def is_level(self) -> bool:
        return math.isclose(self.difference, 0.0, abs_tol=1e-12)

    @property
    def is_clear(self) -> bool:
        """Whether the difference exceeds the noise."""
        return not self.is_level and abs(self.difference) > self.noise


@dataclass(frozen=True)
class Verdict:
    """What the run shows. `outcome` is `open` where nothing can be compared."""

    outcome: Outcome
    headline: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join((self.headline, *self.notes))


def digits_for(test_images: int) -> int:
    """Decimals of a percentage that a test set of this size can support."""
    return 1 if test_images < 2000 else 2


def percent(value: float, digits: int) -> str:
    """0.9131 → "91.3"."""
    return f"{100 * value:.{digits}f}"


def points(value: float, digits: int) -> str:
    """The size of a difference of accuracies in percentage points, never rounded to nothing."""
    shown = f"{100 * abs(value):.{digits}f}"
    if value and not float(shown):
        shown = f"under {10**-digits:.{digits}f}"
    return f"{shown} point" if shown == f"{1:.{digits}f}" else f"{shown} points"


def compare(scores: Mapping[str, Score], arm: str, other: str, test_images: int) -> Comparison:
    """`arm` against `other` on the linear probe.

    The noise is two binomial standard errors of the difference of two accuracies on the test images, which takes the
    arms' errors as independent. Over several seeds it is that or, where larger, half the 95 % interval of the mean of the
    differences, paired by seed: Student's t times their standard error.
    """
    one, two = scores[arm], scores[other]
    noise = 2 * math.hypot(one.binomial_error(test_images), two.binomial_error(test_images))
    differences = Score(tuple(a - b for a, b in zip(one.values, two.values, strict=True)))
    if differences.deviation is not None:
        seeds = len(differences.values)
        noise = max(noise, t_quantile(seeds - 1) * differences.deviation / math.sqrt(seeds))
    return Comparison(other, one.mean - two.mean, noise)


def judge(
    linear: Mapping[str, Score],
    arms: Sequence[str],
    test_images: int,
    used_labels: bool = False,
    lacking: str = NO_LABELS,
    other_images: bool = False,
) -> Verdict:
    """The verdict on the arms of a recipe, by the linear probe.

    `linear` holds the arms' scores and perhaps those of `untrained`; empty where none could be probed, because the data
    have what `lacking` says. `adainf` wins only where it is above every control that was trained, each time by more than
    the noise. `used_labels`, `other_images`: the generated images owe something to labels, or to other images than the real
    ones, so a win proves less.
    """
    verdict = _judge(linear, arms, test_images, lacking)
    owed = [note for note, owes in ((LABELS_NOTE, used_labels), (OTHER_IMAGES_NOTE, other_images)) if owes]
    return replace(verdict, notes=(*verdict.notes, *owed))


def _judge(linear: Mapping[str, Score], arms: Sequence[str], test_images: int, lacking: str) -> Verdict:
    if not linear:
        return Verdict("open", f"The data have {lacking}, so no probe: this run cannot say which arm is better.")
    digits = digits_for(test_images)
    subject = next((arm for arm in ("adainf", "verified", "vanilla") if arm in arms), None)
    controls = [arm for arm in CONTROLS if arm in arms and arm != subject]
    untrained = _untrained_note(linear, arms, digits)
    if subject is None:
        headline = f"Only none was trained: {_accuracy(linear['none'], digits)}, and no inflated arm to compare with it."
        return Verdict("open", headline, untrained)
    if not controls:
        headline = (
            f"{subject} has no control here: {_accuracy(linear[subject], digits)}, which says nothing about inflation "
            "while none is not trained."
        )
        return Verdict("open", headline, untrained)

    def against_controls(arm: str) -> tuple[str, bool]:
        """In words, and whether it is above all of them by more than the noise."""
        comparisons = [compare(linear, arm, control, test_images) for control in controls]
        words = f"{_accuracy(linear[arm], digits)}, {_and([_clause(one, digits) for one in comparisons])}."
        return words, all(one.difference > 0 and one.is_clear for one in comparisons)

    found, wins = against_controls(subject)
    verified = (f"verified, as the probes chose: {against_controls('verified')[0]}",) if "verified" in arms else ()
    notes = (_noise_note(len(linear[subject].values), test_images), *untrained)
    if subject != "adainf":
        return Verdict("open", f"There is no adainf arm here. {subject}: {found}", notes)
    if not wins:
        return Verdict("no win", f"adainf does not win here: {found}", (*verified, *notes))
    unknown = () if "none-weak" in controls else (NONE_WEAK_NOTE,)
    return Verdict("win", f"adainf wins here: {found}", (*unknown, *verified, *notes))


def _accuracy(score: Score, digits: int) -> str:
    return f"{percent(score.mean, digits)} % on the linear probe"


def _clause(one: Comparison, digits: int) -> str:
    if one.is_level:
        return f"level with {one.other}"
    side = "above" if one.difference > 0 else "below"
    noise = "more than" if one.is_clear else "within"
    return f"{points(one.difference, digits)} {side} {one.other} ({noise} the noise of {points(one.noise, digits)})"


def _noise_note(seeds: int, test_images: int) -> str:
    if seeds > 1:
        return (
            f"Noise is the larger of two: that of the seeds, {t_quantile(seeds - 1):.2f} standard errors (Student's t, 95 %) "
            f"of the difference paired by seed over {seeds} seeds; and that of the test set, two binomial standard errors of "
            f"the difference between two accuracies on the {test_images:,} test images that all seeds share."
        )
    return (
        f"Noise is two binomial standard errors of the difference between two accuracies on {test_images:,} test images; "
        "one seed cannot show more, as what another seed would change is not measured."
    )


def _untrained_note(linear: Mapping[str, Score], arms: Sequence[str], digits: int) -> tuple[str, ...]:
    """Pretraining that does not beat random weights deserves to be said, whoever wins."""
    untrained = linear.get("untrained")
    if untrained is None:
        return ()
    beaten = [arm for arm in arms if linear[arm].mean <= untrained.mean]
    if not beaten:
        return ()
    verb = "is" if len(beaten) == 1 else "are"
    return (f"{_and(beaten)} {verb} not above the untrained encoder ({percent(untrained.mean, digits)} %).",)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
