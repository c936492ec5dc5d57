"""MoCo v2: Improved Baselines with Momentum Contrastive Learning (Chen et al. 2020, arXiv 2003.04297), symmetric loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe
from adainf.methods.method import Embedded, Method, cosine, full_precision, make_teacher, update_teacher
from adainf.models.backbones import Backbone
from adainf.models.heads import mlp
from adainf.models.norm import SplitBatchNorm, split_batch_norm
from adainf.runtime.determinism import to_device
from adainf.runtime.distributed import gather_rows, local_rows


def info_nce(
    queries_bD: Tensor, keys_bD: Tensor, queue_KD: Tensor, own_b: Tensor, queued_K: Tensor, temperature: float
) -> Tensor:
    """InfoNCE against a queue (MoCo, equation 1), as a mean over the b local rows.

    l_i = -log( exp(q_i k_i / T) / (exp(q_i k_i / T) + sum_j exp(q_i n_j / T)) ) with q and k of norm 1 and n over the K keys
    of the queue except those of image i: `own_b` and `queued_K` are the image ids. float32 scalar (float64 for float64). Exact
    for any world size: the queue is the same on every rank, and rows are independent.
    """
    with torch.autocast(queries_bD.device.type, enabled=False):
        q, k = F.normalize(full_precision(queries_bD), dim=1), F.normalize(full_precision(keys_bD), dim=1)
        negatives = (q @ queue_KD.to(q.dtype).T).masked_fill(own_b[:, None] == queued_K, float("-inf"))
        logits = torch.cat([(q * k).sum(1, keepdim=True), negatives], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


class MoCo(Method):
    """A query encoder that learns, and a key encoder that is its moving average.

    Both losses use the queue from before the step; otherwise keys would be negatives of their own positives.
    """

    independent_rows = True
    queue: Tensor
    queued: Tensor
    filled_to: Tensor

    def __init__(self, backbone: Backbone, config: recipe.MoCo) -> None:
        super().__init__()
        self.config, self.step, self.momentum = config, 0, config.momentum
        self.backbone = backbone
        if config.norm_splits > 1:
            split_batch_norm(backbone, config.norm_splits)
        self.projector = mlp(backbone.num_features, config.projector_hidden, config.projector_out)
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))
        self.shuffles = any(isinstance(layer, SplitBatchNorm) for layer in backbone.modules())
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, config.projector_out), dim=1))
        self.register_buffer("queued", torch.full((config.queue,), -1))
        self.register_buffer("filled_to", torch.zeros((), dtype=torch.int64))

    def before_step(self, step: int, steps: int) -> None:
        self.step = step
        self.momentum = cosine(self.config.momentum, self.config.momentum_end, step, steps)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        features1, features2 = (self.backbone(view) for view in views)
        q1, q2 = self.projector(features1), self.projector(features2)
        with torch.no_grad():
            k1, k2 = (self._keys(view) for view in views)
        return Embedded((q1, q2, k1, k2), features1.detach())

    def _keys(self, view_bCHW: Tensor) -> Tensor:
        """Keys in the order of the images, normalised in other groups than their queries (shuffled batch normalisation)."""
        if not self.shuffles:
            return self.teacher(view_bCHW)
        gathered = gather_rows(view_bCHW)
        order = torch.randperm(len(gathered), generator=torch.Generator().manual_seed(self.step))
        order = to_device(order, gathered.device)
        keys = self.teacher(gathered[local_rows(order)])
        return gather_rows(keys)[local_rows(order.argsort())]

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        q1, q2, k1, k2 = rows
        queue = (self.queue, identities_b, self.queued, self.config.temperature)
        return (info_nce(q1, k2, *queue) + info_nce(q2, k1, *queue)) / 2

    @torch.no_grad()
    def after_update(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        keys = torch.cat([gather_rows(F.normalize(full_precision(k), dim=1)) for k in rows[2:]])
        images = gather_rows(identities_b).repeat(2)
        size = len(self.queue)
        keys, images = keys[-size:], images[-size:]
        at = (self.filled_to + torch.arange(len(keys), device=keys.device)) % size
        self.queue[at], self.queued[at] = keys.to(self.queue.dtype), images
        self.filled_to.copy_((self.filled_to + len(keys)) % size)
        update_teacher(self.teacher, nn.Sequential(self.backbone, self.projector), self.momentum)
