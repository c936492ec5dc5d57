"""Data whose exact denoiser E[clean | noisy] has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN, STD = 0.2, 0.5
SHAPE = (3, 2, 2)


def gaussian(x: Tensor, sigma_B: Tensor) -> Tensor:
    """For values that are independent normal with `MEAN` and `STD`."""
    variance = sigma_B[:, None, None, None].to(x.dtype) ** 2
    return (STD**2 * x + variance * MEAN) / (STD**2 + variance)


class Correlated:
    """For normal images of `SHAPE` with any mean and covariance: mean + C (C + sigma^2 I)^-1 (x - mean)."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
        self.mean = torch.linspace(-0.5, 0.5, 12, dtype=torch.float64)
        self.covariance = 0.02 * mixing @ mixing.T
        self._values, self._vectors = torch.linalg.eigh(self.covariance)

    def __call__(self, x: Tensor, sigma_B: Tensor) -> Tensor:
        shrink = self._values / (self._values + float(sigma_B[0]) ** 2)
        centred = x.double().flatten(1) - self.mean
        return (self.mean + (centred @ self._vectors * shrink) @ self._vectors.T).view_as(x)


LOW, HIGH, HIGH_SHARE = -0.6, 0.8, 0.3


def two_points(x: Tensor, sigma_B: Tensor) -> Tensor:
    """For images that are all `LOW` or, in a share of `HIGH_SHARE`, all `HIGH`."""
    variance = float(sigma_B[0]) ** 2
    at = x.double().flatten(1)
    odds = ((at - LOW).square() - (at - HIGH).square()).sum(1) / (2 * variance)
    high = torch.sigmoid(odds + torch.tensor(HIGH_SHARE / (1 - HIGH_SHARE)).log())
    return (LOW + (HIGH - LOW) * high)[:, None, None, None].expand_as(x)
