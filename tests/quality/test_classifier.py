"""The classifier's bound: below the known total variation, and not far below."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from adainf.quality.classifier import balanced_accuracy, total_variation


def gaussians(distance: float, count: int = 1000, width: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two unit Gaussians so far apart along the first axis."""
    real, generated = np.random.default_rng(seed).normal(size=(2, count, width))
    generated[:, 0] += distance
    return real, generated


def test_two_gaussians_apart() -> None:
    """TV = 2 Φ(d / 2) - 1, which the best classifier, a linear one, attains."""
    for distance in (0.5, 1.5, 3.0):
        truth = 2 * NormalDist().cdf(distance / 2) - 1
        found = balanced_accuracy(*gaussians(distance))
        assert abs(found.value - (1 + truth) / 2) < 0.03
        assert truth - 0.1 < total_variation(found) <= truth


def test_the_same_distribution_has_the_bound_zero() -> None:
    """Also with as many features as images, which a classifier learns by heart: what it is asked it has not seen.

    The bound is wrong once in forty times."""
    for width in (2, 100):
        bounds = [total_variation(balanced_accuracy(*gaussians(0.0, 100, width, seed))) for seed in range(20)]
        assert sum(bound > 0 for bound in bounds) <= 3
