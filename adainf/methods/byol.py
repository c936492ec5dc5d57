"""BYOL: Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe
from adainf.methods.method import Embedded, Method, cosine, full_precision, make_teacher, update_teacher
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp


def regression(predictions_bD: Tensor, targets_bD: Tensor) -> Tensor:
    """2 - 2 cos(p, t), the squared distance of normalised vectors (equation 2), as a mean over the b local rows.

    Targets get no gradient. float32 scalar (float64 for float64). Exact for any world size: rows are independent.
    """
    with torch.autocast(predictions_bD.device.type, enabled=False):
        p, t = full_precision(predictions_bD), full_precision(targets_bD.detach())
        return 2 - 2 * F.cosine_similarity(p, t, dim=1).mean()


class Byol(Method):
    """Online backbone, projector and predictor, and a teacher of the first two.

    Each view has its own forward pass and batch statistics, as in the authors' code; so has the teacher.
    """

    independent_rows = True
    collapses_by = "a teacher that moves too fast (pretrain.method.momentum), or a learning rate that is too high"

    def __init__(self, backbone: Backbone, config: recipe.Byol) -> None:
        super().__init__()
        self.config, self.momentum = config, config.momentum
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out, norm=True)
        self.predictor = mlp(config.projector_out, config.predictor_hidden, config.projector_out, norm=True)
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))

    def before_step(self, step: int, steps: int) -> None:
        self.momentum = cosine(self.config.momentum, self.config.momentum_end, step, steps)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        features = [self.backbone(view) for view in views]
        p1, p2 = (self.predictor(self.projector(x)) for x in features)
        with torch.no_grad():
            t1, t2 = (self.teacher(view) for view in views)
        return Embedded((p1, p2, t1, t2), features[0].detach())

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        """The sum of both directions (equation 3)."""
        p1, p2, t1, t2 = rows
        return regression(p1, t2) + regression(p2, t1)

    def after_update(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        update_teacher(self.teacher, nn.Sequential(self.backbone, self.projector), self.momentum)
