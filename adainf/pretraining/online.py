"""A look at labels while the encoder trains without them: gradients stop at the features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf.models.backbones import Backbone
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init


class OnlineProbe:
    """A linear classifier that each batch judges before it learns from it. Images without a label (-1) are left out, and a
    batch of such alone changes nothing.

    It is no part of a checkpoint: it shows how training goes, and learns again within a few hundred steps.
    """

    def __init__(self, features: int, classes: int, device: torch.device) -> None:
        with seeded_init(0):
            self._linear = nn.Linear(features, classes).to(device)
        self._optimizer = torch.optim.SGD(self._linear.parameters(), lr=0.1, momentum=0.9)
        self._tally = torch.zeros(3, dtype=torch.float64, device=device)

    def learn(self, features_bD: Tensor, labels_b: Tensor) -> None:
        """Judge, then learn from the labelled images of all processes."""
        labels = labels_b.to(features_bD.device)
        with torch.enable_grad():
            logits = self._linear(F.normalize(features_bD.detach().float(), dim=1) * features_bD.shape[1] ** 0.5)
            losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        known = (labels >= 0).sum()
        right = ((logits.argmax(1) == labels) & (labels >= 0)).sum()
        self._tally += torch.stack([losses.detach().double(), right.double(), known.double()])
        everywhere = distributed.all_reduce_sum(known.double()).clamp(min=1)
        self._optimizer.zero_grad()
        losses.backward()
        for parameter in self._linear.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(distributed.all_reduce_sum(parameter.grad) / everywhere)
        self._optimizer.step()

    def read(self) -> dict[str, float]:
        """Loss and accuracy since the last call; nothing where no image had a label."""
        loss, right, known = distributed.all_reduce_sum(self._tally).tolist()
        self._tally.zero_()
        return {"probe_loss": loss / known, "probe_accuracy": right / known} if known else {}


KnnJudge = Callable[[Backbone], float]
"""Accuracy, 0..1, of nearest neighbours on the validation split, by a backbone in evaluation mode."""


def judged(backbone: Backbone, judge: KnnJudge) -> float:
    """The judge's accuracy; the backbone trains on as if nobody had looked."""
    training = backbone.training
    backbone.eval()
    try:
        return judge(backbone)
    finally:
        backbone.train(training)
