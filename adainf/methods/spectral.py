"""The spectral loss: Provable Guarantees for Self-Supervised Deep Learning (HaoChen et al. 2021, arXiv 2106.04156)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adainf import recipe
from adainf.methods.method import Embedded, Method, full_precision, project_each, same_image
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp
from adainf.runtime.distributed import all_reduce_sum, gather_rows, world_size


def spectral_contrastive(z1_bD: Tensor, z2_bD: Tensor, identities_b: Tensor, mu: float) -> Tensor:
    """(-2 mean_i z_i z'_i + mean_{i != j} (z_i z'_j)^2) / mu (equation 6), with z clipped to the norm sqrt(mu).

    j is over the second views of the global batch except copies of image i; the second mean is over all remaining pairs of the
    global batch. float32 scalar (float64 for float64). Exact for any world size: local rows against gathered rows, with the
    same denominator on all ranks.
    """
    with torch.autocast(z1_bD.device.type, enabled=False):
        z1, z2 = (_within(full_precision(z), mu**0.5) for z in (z1_bD, z2_bD))
        other = ~same_image(identities_b)
        pairs = all_reduce_sum(other.sum().to(z1.dtype)).clamp(min=1)
        squares = ((z1 @ gather_rows(z2).T).square() * other).sum() * world_size() / pairs
        return (squares - 2 * (z1 * z2).sum(1).mean()) / mu


def _within(z_bD: Tensor, radius: float) -> Tensor:
    """Clip the norm of rows to `radius`, as in the authors' code."""
    return z_bD * (radius / z_bD.norm(dim=1, keepdim=True).clamp(min=radius))


class Spectral(Method):
    """Backbone and projector (with batch normalisation after its last layer); each view has its own forward pass."""

    def __init__(self, backbone: Backbone, config: recipe.Spectral) -> None:
        super().__init__()
        self.backbone, self.mu = backbone, config.mu
        head = mlp(backbone.num_features, config.projector_hidden, config.projector_out, norm=True)
        self.projector = nn.Sequential(head, nn.BatchNorm1d(config.projector_out))

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        return project_each(self.backbone, self.projector, views)

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        return spectral_contrastive(rows[0], rows[1], identities_b, self.mu)
