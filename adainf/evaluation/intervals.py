"""95 % intervals of accuracies: Wilson's for one encoder on test images, Student's for the mean over several."""

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
    """0..1 each."""

    low: float
    high: float


def wilson(accuracy: float, images: int) -> Interval:
    """Of an accuracy on so many test images (one or more): Wilson's score interval (1927), which never leaves 0..1."""
    z2 = NORMAL_QUANTILE**2 / images
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = NORMAL_QUANTILE / (1 + z2) * math.sqrt(accuracy * (1 - accuracy) / images + z2 / (4 * images))
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


def student(accuracies: Sequence[float]) -> Interval:
    """Of the mean accuracy over two seeds or more: what other seeds would change, but not other test images."""
    mean, half = statistics.fmean(accuracies), margin(accuracies)
    return Interval(max(mean - half, 0.0), min(mean + half, 1.0))


def margin(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean over two values or more: its standard error times Student's t."""
    return t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def t_quantile(freedom: int) -> float:
    """Student's t, 97.5 %, for 1 degree of freedom or more; above 30 that of 30, which is slightly too large."""
    return _T_QUANTILES[min(freedom, len(_T_QUANTILES)) - 1]
