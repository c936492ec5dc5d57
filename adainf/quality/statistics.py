"""Sufficient statistics for the Fréchet distance and the map: sums that add up over shards without reading an image again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_ROWS_AT_ONCE = 4096

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over `count` features of D numbers, in float64."""

    count: int
    sum_D: Matrix
    outer_DD: Matrix
    """The sum of f fᵀ."""

    @classmethod
    def of(cls, features_ND: NDArray[Any]) -> Moments:
        """The moments of all rows."""
        width = features_ND.shape[1]
        total, outer = np.zeros(width), np.zeros((width, width))
        with threadpool_limits(1):  # a fixed order of summation on every machine
            for first in range(0, len(features_ND), _ROWS_AT_ONCE):
                part = features_ND[first : first + _ROWS_AT_ONCE].astype(np.float64)
                total += part.sum(0)
                outer += part.T @ part
        return cls(len(features_ND), total, outer)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD)

    @property
    def mean_D(self) -> Matrix:
        return self.sum_D / self.count

    @property
    def covariance_DD(self) -> Matrix:
        """The unbiased estimate; zero for a single row."""
        return (self.outer_DD - np.outer(self.sum_D, self.mean_D)) / max(self.count - 1, 1)


def principal_axes(moments: Moments, count: int) -> Matrix:
    """D x `count`: principal axes, the largest variance first.

    The sign of an eigenvector is arbitrary; here its entry of largest magnitude is positive.
    """
    with threadpool_limits(1):
        axes = np.linalg.eigh(moments.covariance_DD).eigenvectors[:, : -count - 1 : -1]
    return axes * np.sign(axes[np.abs(axes).argmax(0), range(count)])


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean difference|² + tr(A + B - 2 (A B)^½), the squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982;
    Heusel et al. 2017, equation 6).

    tr (A B)^½ is the sum of the singular values of A^½ B^½, which avoids the root of a non-symmetric matrix.
    """
    with threadpool_limits(1):
        overlap = np.linalg.svd(_root(a.covariance_DD) @ _root(b.covariance_DD), compute_uv=False).sum()
    apart = float(np.square(a.mean_D - b.mean_D).sum())
    spread = float(np.trace(a.covariance_DD) + np.trace(b.covariance_DD) - 2 * overlap)
    return max(apart + spread, 0.0)  # rounding may make it negative


def _root(covariance_DD: Matrix) -> Matrix:
    """The symmetric square root. Eigenvalues within rounding error of 0 are set to 0, as their roots would not be small."""
    values, vectors = np.linalg.eigh(covariance_DD)
    noise = len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    return (vectors * np.sqrt(np.where(values > noise, values, 0.0))) @ vectors.T
