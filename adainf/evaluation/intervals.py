"""95 % confidence intervals of accuracies: Wilson's for one encoder over test images, Student's t for a mean over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

NORMAL_QUANTILE = statistics.NormalDist().inv_cdf(0.975)

# Student's t, 97.5 % quantile, for 1, 2, … 30 degrees of freedom. A table, as scipy.stats is slow to import.
_T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Interval(NamedTuple):
    """Both ends in 0..1."""

    low: float
    high: float


def wilson_interval(accuracy: float, images: int) -> Interval:
    """Wilson's score interval (1927) of an accuracy on `images` ≥ 1 test images; always within 0..1."""
    z2 = NORMAL_QUANTILE**2 / images
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = NORMAL_QUANTILE / (1 + z2) * math.sqrt(accuracy * (1 - accuracy) / images + z2 / (4 * images))
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


def student_interval(accuracies: Sequence[float]) -> Interval:
    """Student's t interval of the mean accuracy over two or more seeds: variation over seeds, not over test images."""
    mean, half = statistics.fmean(accuracies), half_width(accuracies)
    return Interval(max(mean - half, 0.0), min(mean + half, 1.0))


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of the mean of two or more values: standard error times Student's t quantile."""
    return t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def t_quantile(degrees_of_freedom: int) -> float:
    """97.5 % quantile of Student's t for one or more degrees of freedom; above 30 that of 30, which is slightly too large."""
    return _T_QUANTILES[min(degrees_of_freedom, len(_T_QUANTILES)) - 1]
