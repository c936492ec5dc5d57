"""k-nearest-neighbour estimate of a set's support: a ball around each point that reaches its k-th nearest neighbour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.quality.pairwise import Features, distances, nearest


class Manifold:
    """The balls of a set of features, which must have more than k rows."""

    def __init__(self, points_ND: Features, neighbours: int, device: torch.device) -> None:
        self.points_ND, self.neighbours, self._device = points_ND, neighbours, device
        # k + 1, as the first neighbour is the point itself.
        self.radii_N = nearest(points_ND, points_ND, neighbours + 1, device).distances[:, -1]

    def ball_counts(self, queries_nD: Features) -> NDArray[np.int64]:
        """n: number of balls that contain each query."""
        counts = torch.zeros(len(queries_nD), dtype=torch.int64, device=self._device)
        radii_N = torch.from_numpy(self.radii_N).to(self._device)
        for rows, columns, distance_bB in distances(queries_nD, self.points_ND, self._device):
            counts[rows] += (distance_bB < radii_N[columns]).sum(1)
        return counts.cpu().numpy()

    def coverage(self, queries_nD: Features) -> float:
        """Share of the balls that contain a query (Naeem et al. 2020), 0..1."""
        return float(np.mean(self.is_covered(queries_nD)))

    def is_covered(self, queries_nD: Features) -> NDArray[np.bool_]:
        """N: whether each ball contains a query."""
        if not len(queries_nD):
            return np.zeros(len(self.radii_N), bool)
        return nearest(self.points_ND, queries_nD, 1, self._device).distances[:, 0] < self.radii_N

    def realism(self, queries_nD: Features) -> NDArray[np.float64]:
        """n: the largest radius / distance over the balls (Kynkäänniemi et al. 2019, equation 3); at least 1 inside a ball.

        As in the paper, the larger half of the balls is dropped: large balls come from sparse regions.
        """
        small = np.flatnonzero(self.radii_N <= np.median(self.radii_N))
        radii_N = torch.from_numpy(self.radii_N[small]).to(self._device)
        best = torch.zeros(len(queries_nD), dtype=torch.float64, device=self._device)
        for rows, columns, distance_bB in distances(queries_nD, self.points_ND[small], self._device):
            ratios_bB = radii_N[columns] / distance_bB.clamp(min=torch.finfo(torch.float64).tiny)
            best[rows] = torch.maximum(best[rows], ratios_bB.amax(1))
        return best.cpu().numpy()


class Overlap(NamedTuple):
    precision: float
    """Share of generated images inside a ball of the real ones (Kynkäänniemi et al. 2019, equation 2), 0..1."""
    recall: float
    """Share of real images inside a ball of the generated ones."""
    density: float
    """Mean number of real images' balls that contain a generated image, over k; about 1 for real images (Naeem et al. 2020)."""
    coverage: float
    """Share of real images' balls that contain a generated image."""


def overlap(real: Manifold, generated: Manifold) -> Overlap:
    """Precision, recall, density and coverage of two sets of features, with the same k."""
    held = real.ball_counts(generated.points_ND)
    return Overlap(
        precision=float(np.mean(held > 0)),
        recall=float(np.mean(generated.ball_counts(real.points_ND) > 0)),
        density=float(np.mean(held)) / real.neighbours,
        coverage=real.coverage(generated.points_ND),
    )
