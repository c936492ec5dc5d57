"""Where the images of a set lie: a ball around each, as far as its k-th nearest neighbour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.quality.pairs import Features, distances, nearest


class Manifold:
    """The balls of a set of features. Their number must exceed k."""

    def __init__(self, points_ND: Features, neighbours: int, device: torch.device) -> None:
        self.points_ND, self.neighbours, self._device = points_ND, neighbours, device
        # The first neighbour is the point itself.
        self.radii_N = nearest(points_ND, points_ND, neighbours + 1, device).distances[:, -1]

    def holding(self, queries_nD: Features) -> NDArray[np.int64]:
        """n: how many balls hold each query."""
        counts = torch.zeros(len(queries_nD), dtype=torch.int64, device=self._device)
        radii_N = torch.from_numpy(self.radii_N).to(self._device)
        for rows, columns, distance_bB in distances(queries_nD, self.points_ND, self._device):
            counts[rows] += (distance_bB < radii_N[columns]).sum(1)
        return counts.cpu().numpy()

    def coverage(self, queries_nD: Features) -> float:
        """Share of the balls that hold a query (Naeem et al. 2020), 0..1."""
        return float(np.mean(self.covered(queries_nD)))

    def covered(self, queries_nD: Features) -> NDArray[np.bool_]:
        """N: which balls hold a query."""
        if not len(queries_nD):
            return np.zeros(len(self.radii_N), bool)
        return nearest(self.points_ND, queries_nD, 1, self._device).distances[:, 0] < self.radii_N

    def realism(self, queries_nD: Features) -> NDArray[np.float64]:
        """n: the largest radius / distance over the balls (Kynkäänniemi et al. 2019, equation 3); 1 or more is inside of one.

        As there, the larger half of the balls is left out: they lie where there are few points, and say little.
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
    """Share of the generated images within a ball of the real ones (Kynkäänniemi et al. 2019, equation 2), 0..1."""
    recall: float
    """Share of the real images within a ball of the generated ones."""
    density: float
    """Balls of real images that hold a generated image, on average, over k; about 1 for real ones (Naeem et al. 2020)."""
    coverage: float
    """Share of the balls of real images that hold a generated one."""


def overlap(real: Manifold, generated: Manifold) -> Overlap:
    """How two sets of features lie to each other, with one k for all four numbers."""
    held = real.holding(generated.points_ND)
    return Overlap(
        precision=float(np.mean(held > 0)),
        recall=float(np.mean(generated.holding(real.points_ND) > 0)),
        density=float(np.mean(held)) / real.neighbours,
        coverage=real.coverage(generated.points_ND),
    )
