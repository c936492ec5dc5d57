"""VICReg: Variance-Invariance-Covariance Regularization (Bardes et al. 2022, arXiv 2105.04906)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adainf import recipe
from adainf.methods.method import Embedded, Method, full_precision, project_each
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp
from adainf.runtime.distributed import gather_rows

_EPS = 1e-4


def vicreg(z1_bD: Tensor, z2_bD: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """invariance s(Z, Z') + variance [v(Z) + v(Z')] / 2 + covariance [c(Z) + c(Z')] (equation 6; the half of v as in the
    authors' code).

    s is the mean squared distance per dimension (equation 5), v the mean over dimensions of max(0, 1 - sqrt(Var + 1e-4))
    (equations 1 and 2), c the sum of squared off-diagonal covariances over D (equations 3 and 4); variances and covariances
    over the global batch, with B - 1. float32 scalar (float64 for float64). Exact for any world size: s is a mean over local
    rows; v and c are functions of gathered rows, whose backward is all-reduced.
    """
    with torch.autocast(z1_bD.device.type, enabled=False):
        z1, z2 = full_precision(z1_bD), full_precision(z2_bD)
        loss = invariance * F.mse_loss(z1, z2)
        for z in (z1, z2):
            gathered = gather_rows(z)
            centred = gathered - gathered.mean(0)
            cov = centred.T @ centred / (len(gathered) - 1)
            variances = torch.diagonal(cov)
            loss = loss + variance * F.relu(1 - (variances + _EPS).sqrt()).mean() / 2
            loss = loss + covariance * (cov.square().sum() - variances.square().sum()) / cov.shape[0]
        return loss


class VicReg(Method):
    """Backbone and a projector of three layers; each view has its own forward pass, as in the authors' code."""

    collapses_by = "a weight of variance that is too low relative to invariance (pretrain.method.variance)"

    def __init__(self, backbone: Backbone, config: recipe.VicReg) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out, layers=3, norm=True)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        return project_each(self.backbone, self.projector, views)

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        config = self.config
        return vicreg(rows[0], rows[1], config.invariance, config.variance, config.covariance)
