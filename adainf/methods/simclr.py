"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe
from adainf.dist import gather_rows, rank
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp


def nt_xent(z1_bD: Tensor, z2_bD: Tensor, temperature: float) -> Tensor:
    """NT-Xent, the normalised temperature-scaled cross entropy (equation 1), as a mean over the 2 b local rows.

    l(i, j) = -log( exp(s_ij / T) / sum_{k != i} exp(s_ik / T) ), with s the cosine similarity and k over the 2 B
    projections of the global batch. `z1_bD`, `z2_bD`: the two views of the same b local images, any float type; the
    loss is a float32 scalar (float64 for float64). Exact for any world size: its mean over ranks, and the gradients that
    DistributedDataParallel averages, are those of one process with the whole batch.
    """
    with torch.autocast(z1_bD.device.type, enabled=False):
        dtype = torch.promote_types(z1_bD.dtype, torch.float32)
        z1, z2 = F.normalize(z1_bD.to(dtype), dim=1), F.normalize(z2_bD.to(dtype), dim=1)
        keys = torch.cat([gather_rows(z1), gather_rows(z2)])
        logits = torch.cat([z1, z2]) @ keys.T / temperature
        local, whole = len(z1), len(keys) // 2
        first = torch.arange(local, device=logits.device) + rank() * local
        own = torch.cat([first, first + whole])
        positive = torch.cat([first + whole, first])
        logits = logits.scatter(1, own[:, None], float("-inf"))
        return F.cross_entropy(logits, positive)


class SimClr(nn.Module):
    """Backbone and projector; both views pass in one batch, so that batch statistics are over 2 B images."""

    def __init__(self, backbone: Backbone, config: recipe.SimClr) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out)
        self.temperature = config.temperature

    def forward(self, view1_bCHW: Tensor, view2_bCHW: Tensor) -> Tensor:
        """The loss of b images by their two views."""
        z1, z2 = self.projector(self.backbone(torch.cat([view1_bCHW, view2_bCHW]))).chunk(2)
        return nt_xent(z1, z2, self.temperature)
