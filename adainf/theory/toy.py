"""The paper's two-dimensional toy (figure 5): two Gaussians, views uniform on a disc around each point.

Points come in equal shares from normal distributions of variance 0.7 about (-1, 0) and (1, 0). The label of a point or view is
the more likely component, the sign of its first coordinate. Nothing is trained: the graph contains all views.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.sparse import csr_matrix

from adainf.pipeline.records import Record
from adainf.theory.bound import error_bound
from adainf.theory.graph import image_graph, laplacian_eigenvalues

Points = NDArray[np.float64]
VARIANCE = 0.7
RADII = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
SIZES = (25, 100, 400, 1600)
FEATURES = (2, 5, 10)
"""k, the number of features of an encoder; connectivity is lambda_{k+1}."""
CELLS_PER_RADIUS = 6
"""Resolution of the grid whose cells are the views: about 113 cells per disc."""


class ToyCurve(Record):
    """Results for one data size at each radius of `Toy`, mean over the seeds."""

    points: int
    features: int
    """k."""
    connectivity: list[float]
    """lambda_{k+1}."""
    bound: list[float | None]
    """4 alpha / lambda_{k+1} + 8 alpha of these means; null is infinite."""
    best_radius: float
    """The radius with the smallest bound."""


class Toy(Record):
    """Results of the toy."""

    seeds: list[int]
    radii: list[float]
    labelling_error: list[float]
    """alpha at each radius."""
    curves: list[ToyCurve]


def sample_points(count: int, seed: int) -> Points:
    """n x 2. Samples are nested: the first points of a larger sample are those of a smaller one."""
    random = np.random.Generator(np.random.Philox(seed))
    points_N2 = random.normal(scale=np.sqrt(VARIANCE), size=(count, 2))
    points_N2[:, 0] += np.where(np.arange(count) % 2, 1.0, -1.0)
    return points_N2


def labelling_error(radius: float) -> float:
    """Probability that a view has another label than its point, over the distribution of points, so independent of n.

    A view is shifted by r u along the axis, where u has the density 2 sqrt(1 - u^2) / pi of a disc's projection; the label
    changes for points between 0 and -r u.
    """
    halves = [NormalDist(mean, VARIANCE**0.5) for mean in (-1, 1)]

    def swapped(u: float) -> float:
        between = sum(half.cdf(radius * u) - half.cdf(0) for half in halves) / 2
        return float(between * 2 * np.sqrt(1 - u * u) / np.pi)

    return 2 * float(quad(swapped, 0, 1)[0])  # symmetric in both directions


def disc_views(points_N2: Points, radius: float, cells_per_radius: int = CELLS_PER_RADIUS) -> csr_matrix:
    """A(x|i), N x M: uniform over the square cells whose centre is within `radius` of the point."""
    side = radius / cells_per_radius
    reach = np.arange(-cells_per_radius - 1, cells_per_radius + 2)
    offsets_C2 = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2)
    cells_NC2 = np.floor(points_N2 / side).astype(np.int64)[:, None] + offsets_C2
    inside_NC = np.linalg.norm((cells_NC2 + 0.5) * side - points_N2[:, None], axis=2) <= radius
    rows, _ = np.nonzero(inside_NC)
    cells, columns = np.unique(cells_NC2[inside_NC], axis=0, return_inverse=True)
    probabilities = 1 / inside_NC.sum(axis=1)[rows]
    return csr_matrix((probabilities, (rows, columns.ravel())), shape=(len(points_N2), len(cells)))


def connectivity(points_N2: Points, radius: float, features: int) -> NDArray[np.float64]:
    """lambda_2 … lambda_{k+1} of the points' augmentation graph."""
    return laplacian_eigenvalues(image_graph(disc_views(points_N2, radius)), features + 1)[1:]


def measure_toy(
    sizes: tuple[int, ...] = SIZES,
    radii: tuple[float, ...] = RADII,
    features: tuple[int, ...] = FEATURES,
    seeds: tuple[int, ...] = tuple(range(10)),
) -> Toy:
    """All of figure 5; deterministic. Half a minute on one core."""
    alphas = [labelling_error(radius) for radius in radii]
    curves = []
    for size in sizes:
        found_SRk = [[connectivity(sample_points(size, seed), radius, max(features)) for radius in radii] for seed in seeds]
        mean_Rk = np.mean(found_SRk, axis=0)
        for k in features:
            lambdas = [float(value) for value in mean_Rk[:, k - 1]]
            bounds = [error_bound(alpha, value) for alpha, value in zip(alphas, lambdas, strict=True)]
            curve = ToyCurve(
                points=size,
                features=k,
                connectivity=lambdas,
                bound=[bound if np.isfinite(bound) else None for bound in bounds],
                best_radius=radii[int(np.argmin(bounds))],
            )
            curves.append(curve)
    return Toy(seeds=list(seeds), radii=list(radii), labelling_error=alphas, curves=curves)
