"""SimSiam: Exploring Simple Siamese Representation Learning (Chen and He 2021, arXiv 2011.10566)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adainf import recipe
from adainf.methods.method import Embedded, Method, full_precision
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp


def negative_cosine(predictions_bD: Tensor, projections_bD: Tensor) -> Tensor:
    """-cos(p, stopgrad(z)) (equation 1 with section 3's stop), as a mean over the b local rows.

    float32 scalar (float64 for float64). Exact for any world size: rows are independent.
    """
    with torch.autocast(predictions_bD.device.type, enabled=False):
        p, z = full_precision(predictions_bD), full_precision(projections_bD.detach())
        return -F.cosine_similarity(p, z, dim=1).mean()


class SimSiam(Method):
    """Backbone, projector and predictor; each view has its own forward pass, as in the authors' code."""

    independent_rows = True
    collapses_by = "a learning rate that is too high (pretrain.optimizer.learning_rate), or weight decay that is too strong"

    def __init__(self, backbone: Backbone, config: recipe.SimSiam) -> None:
        super().__init__()
        self.backbone = backbone
        out = config.projector_out
        self.projector = mlp(backbone.num_features, config.projector_hidden, out, layers=3, norm=True, norm_last=True)
        self.predictor = mlp(out, config.predictor_hidden, out, norm=True)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        features = [self.backbone(view) for view in views]
        z1, z2 = (self.projector(x) for x in features)
        return Embedded((self.predictor(z1), self.predictor(z2), z1.detach(), z2.detach()), features[0].detach())

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        """The mean of both directions (equation 4)."""
        p1, p2, z1, z2 = rows
        return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
