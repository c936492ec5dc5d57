"""The Fréchet distance against closed forms and torch-fidelity; sums that add up over shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from adainf.quality.statistics import Moments, frechet_distance


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 1000) -> Moments:
    """The moments of so many samples whose mean and covariance are exactly these."""
    return Moments(count, count * mean, (count - 1) * covariance + count * np.outer(mean, mean))


def features(seed: int, count: int, width: int) -> np.ndarray:
    """Correlated, none centred."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(count, width)) @ draw.normal(size=(width, width)) + draw.normal(size=width)).astype(np.float32)


def test_two_gaussians_on_the_same_axes() -> None:
    """|m - m'|² + Σ (s - s')² where the covariances share their eigenvectors."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    deviations, others = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.5])
    means = np.array([1.0, 0.0, -2.0]), np.array([0.0, 4.0, 1.0])
    a, b = (gaussian(m, axes * s**2 @ axes.T) for m, s in zip(means, (deviations, others), strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations - others).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_covariances_that_do_not_commute() -> None:
    """2 x 2: tr (A B)^½ = (tr A B + 2 (det A det B)^½)^½, by Cayley and Hamilton."""
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -1.0], [-1.0, 0.7]])
    overlap = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    zero = np.zeros(2)
    found = frechet_distance(gaussian(zero, a), gaussian(zero, b))
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * overlap, rel=1e-12)


@pytest.mark.parametrize(("count", "width"), [(500, 16), (3000, 64)])
def test_same_as_torch_fidelity(count: int, width: int) -> None:
    both = [features(seed, count, width) for seed in (0, 1)]
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(f.astype(np.float64))) for f in both), verbose=False
    )
    ours = frechet_distance(*(Moments.of(f) for f in both))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_fewer_images_than_features() -> None:
    """Singular covariances, where roots of rounding errors add up unless they count as zero."""
    a, b = features(0, 20, 64).astype(np.float64), features(1, 30, 64).astype(np.float64)
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    # tr (A B)^½ by the small matrix of the same eigenvalues other than zero.
    cross = centred_a @ centred_b.T / np.sqrt(19 * 29)
    overlap = np.trace(sqrtm(cross @ cross.T + 0j)).real
    spread = np.square(centred_a).sum() / 19 + np.square(centred_b).sum() / 29 - 2 * overlap
    expected = np.square(a.mean(0) - b.mean(0)).sum() + spread
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    whole = features(0, 9000, 8)  # more than are summed at once
    parts = [Moments.of(part) for part in np.split(whole, [1, 100, 5000])]
    merged = sum(parts[1:], start=parts[0])
    assert merged.count == 9000
    np.testing.assert_allclose(merged.mean_D, whole.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance_DD, np.cov(whole.astype(np.float64), rowvar=False), rtol=1e-9)
    assert frechet_distance(merged, Moments.of(whole)) == pytest.approx(0, abs=1e-9)


def test_a_single_image_has_a_distance() -> None:
    one = Moments.of(np.array([[3.0, 4.0]]))
    assert frechet_distance(one, gaussian(np.zeros(2), np.eye(2))) == pytest.approx(25 + 2)
