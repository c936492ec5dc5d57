"""An accuracy of one arm over its seeds, and the numbers of an arm as text: the same in terminal, report and browser."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from adainf.evaluation.intervals import Interval, student_interval, wilson_interval
from adainf.evaluation.scores import Measure

NOT_AVAILABLE = "–"


@dataclass(frozen=True)
class Accuracy:
    """One accuracy (0..1) of one arm: a value per seed, with the same order of seeds for all arms."""

    values: tuple[float, ...]
    hits: NDArray[np.bool_] | None = field(default=None, compare=False)
    """Seeds x test images: whether the image is classified correctly; None where the scores do not contain it."""

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> Self:
        """Of one measure per seed."""
        hits = [hit for measure in measures if (hit := measure.hits) is not None]
        values = tuple(measure.accuracy for measure in measures)
        return cls(values, np.stack(hits) if len(hits) == len(values) else None)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def interval(self, test_images: int) -> Interval:
        """The 95 % interval: Student's of the mean over several seeds, or Wilson's of one seed on `test_images`."""
        return wilson_interval(self.mean, test_images) if self.std is None else student_interval(self.values)

    def standard_error(self, test_images: int) -> float:
        """The standard error of the mean over several seeds, or the binomial one of one seed on `test_images`."""
        if self.std is not None:
            return self.std / math.sqrt(len(self.values))
        return self.binomial_error(test_images)

    def binomial_error(self, test_images: int) -> float:
        """The standard error of an accuracy on `test_images`. More seeds do not reduce it, because they share the images."""
        return math.sqrt(self.mean * (1 - self.mean) / max(test_images, 1))


def digits_for(test_images: int) -> int:
    """The number of decimals of a percentage that a test set of this size supports."""
    return 1 if test_images < 2000 else 2


def percent(value: float, digits: int) -> str:
    """0.9131 → "91.3"."""
    return f"{100 * value:.{digits}f}"


def amount(value: float) -> str:
    """A number of passes with at least three digits: 0.523, 39.6, 1,024."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def accuracy_text(accuracy: Accuracy | None, digits: int) -> str:
    """In percent, with the standard deviation over the seeds."""
    if accuracy is None:
        return NOT_AVAILABLE
    spread = "" if accuracy.std is None else f" ± {percent(accuracy.std, digits)}"
    return percent(accuracy.mean, digits) + spread


def weight_text(real_weight: float, generated_share: float) -> str:
    """The weight of a real image; without generated images it has none."""
    return f"{real_weight:g}" if generated_share > 0 else NOT_AVAILABLE


def share_text(generated_share: float) -> str:
    """The share of generated images."""
    return f"{100 * generated_share:.0f} %"
