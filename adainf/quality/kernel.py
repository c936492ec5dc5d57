"""The kernel distance: the unbiased squared maximum mean discrepancy with the cubic kernel of KID (Bińkowski et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.evaluation.intervals import t_quantile
from adainf.quality.pairwise import Features, products
from adainf.quality.record import Estimate


def kernel_distance(x_ND: Features, y_ND: Features, device: torch.device) -> Estimate:
    """MMD² (Gretton et al. 2012, equation 3) with k(a, b) = (a·b / D + 1)³, and its 95 % interval.

    Both sets have the same number n > 2 of rows. The interval is a jackknife over the pairs (x_i, y_i); all n leave-one-out
    values follow from the row sums of the kernel. For nearly equal sets the statistic is degenerate and the interval is
    conservative (too wide).
    """
    n, width = x_ND.shape
    xx = _row_sums(x_ND, x_ND, device) - _kernel(_dots(x_ND, x_ND), width)
    yy = _row_sums(y_ND, y_ND, device) - _kernel(_dots(y_ND, y_ND), width)
    xy, yx = _row_sums(x_ND, y_ND, device), _row_sums(y_ND, x_ND, device)
    value = (xx.sum() + yy.sum()) / (n * (n - 1)) - 2 * xy.sum() / n**2
    within = (xx.sum() + yy.sum() - 2 * (xx + yy)) / ((n - 1) * (n - 2))
    across = (xy.sum() - xy - yx + _kernel(_dots(x_ND, y_ND), width)) / (n - 1) ** 2
    without_N = within - 2 * across
    error = np.sqrt((n - 1) / n * np.square(without_N - without_N.mean()).sum())
    half = t_quantile(n - 1) * float(error)
    return Estimate(float(value), float(value) - half, float(value) + half)


def _kernel(products: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return (products / width + 1) ** 3


def _dots(x_ND: Features, y_ND: Features) -> NDArray[np.float64]:
    return np.einsum("nd,nd->n", x_ND, y_ND, dtype=np.float64)


def _row_sums(x_ND: Features, y_ND: Features, device: torch.device) -> NDArray[np.float64]:
    """N: the kernel of each x, summed over all y."""
    sums = torch.zeros(len(x_ND), dtype=torch.float64, device=device)
    for rows, _, product_bB in products(x_ND, y_ND, device):
        sums[rows] += (product_bB / x_ND.shape[1] + 1).pow(3).sum(1)
    return sums.cpu().numpy()
