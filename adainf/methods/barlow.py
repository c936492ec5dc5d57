"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al. 2021, arXiv 2103.03230)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adainf import recipe
from adainf.methods.method import Embedded, Method, full_precision, project_each
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp
from adainf.runtime.distributed import all_reduce_sum, world_size

_EPS = 1e-5


def barlow_twins(z1_bD: Tensor, z2_bD: Tensor, off_diagonal: float) -> Tensor:
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2 (equation 1), C the cross-correlation over the global batch (equation 2).

    Each dimension is standardised over all B rows (biased variance). Returns the same float32 scalar (float64 for float64) on
    every rank. Exact for any world size: means, variances and C are all-reduced, forward and backward.
    """
    with torch.autocast(z1_bD.device.type, enabled=False):
        z1, z2 = (_standardised(full_precision(z)) for z in (z1_bD, z2_bD))
        correlation = all_reduce_sum(z1.T @ z2) / (len(z1) * world_size())
        diagonal = torch.diagonal(correlation)
        rest = correlation.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + off_diagonal * rest


def _standardised(z_bD: Tensor) -> Tensor:
    count = len(z_bD) * world_size()
    centred = z_bD - all_reduce_sum(z_bD.sum(0)) / count
    variance = all_reduce_sum(centred.square().sum(0)) / count
    return centred * torch.rsqrt(variance + _EPS)


class BarlowTwins(Method):
    """Backbone and a projector of three layers; each view has its own forward pass, as in the authors' code."""

    def __init__(self, backbone: Backbone, config: recipe.BarlowTwins) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out, layers=3, norm=True)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        return project_each(self.backbone, self.projector, views)

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        z1, z2 = rows
        return self.config.scale * barlow_twins(z1, z2, self.config.off_diagonal)
