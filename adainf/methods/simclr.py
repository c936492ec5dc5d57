"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adainf import recipe
from adainf.methods.method import Embedded, Method, full_precision, same_image
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp
from adainf.runtime.distributed import gather_rows, rank


def nt_xent(z1_bD: Tensor, z2_bD: Tensor, identities_b: Tensor, temperature: float) -> Tensor:
    """NT-Xent, the normalised temperature-scaled cross entropy (equation 1), as a mean over the 2 b local rows.

    l(i, j) = -log( exp(s_ij / T) / sum_{k != i} exp(s_ik / T) ), with s the cosine similarity and k over the 2 B
    projections of the global batch except those of other copies of image i. `z1_bD`, `z2_bD`: the two views of the same b
    local images, any float type; the loss is a float32 scalar (float64 for float64). Exact for any world size: its mean over
    ranks, and the gradients that DistributedDataParallel averages, equal those of one process with the complete batch.
    """
    with torch.autocast(z1_bD.device.type, enabled=False):
        z1, z2 = F.normalize(full_precision(z1_bD), dim=1), F.normalize(full_precision(z2_bD), dim=1)
        keys = torch.cat([gather_rows(z1), gather_rows(z2)])
        logits = torch.cat([z1, z2]) @ keys.T / temperature
        local, total = len(z1), len(keys) // 2
        first = torch.arange(local, device=logits.device) + rank() * local
        positive = torch.cat([first + total, first])
        copies = same_image(identities_b).repeat(2, 2)
        not_negative = copies & (torch.arange(2 * total, device=logits.device) != positive[:, None])
        return F.cross_entropy(logits.masked_fill(not_negative, float("-inf")), positive)


class SimClr(Method):
    """Backbone and projector; both views share a forward pass, so batch statistics are over 2 B images."""

    def __init__(self, backbone: Backbone, config: recipe.SimClr) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out)
        self.temperature = config.temperature

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        features = self.backbone(torch.cat(list(views)))
        z1, z2 = self.projector(features).chunk(2)
        return Embedded((z1, z2), features[: len(z1)].detach())

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        z1, z2 = rows
        return nt_xent(z1, z2, identities_b, self.temperature)
