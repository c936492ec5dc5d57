"""Metrics with labels during pretraining without labels: gradients stop at the features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf.models.backbones import Backbone
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init


class OnlineProbe:
    """A linear classifier, scored on each batch before it trains on it. Images without a label (-1) are ignored.

    It is not checkpointed: after a restart it recovers within a few hundred steps.
    """

    def __init__(self, features: int, classes: int, device: torch.device) -> None:
        with seeded_init(0):
            self._linear = nn.Linear(features, classes).to(device)
        self._optimizer = torch.optim.SGD(self._linear.parameters(), lr=0.1, momentum=0.9)
        self._tally = torch.zeros(3, dtype=torch.float64, device=device)

    def update(self, features_bD: Tensor, labels_b: Tensor) -> None:
        """Score the labelled images of all processes, then train on them."""
        labels = labels_b.to(features_bD.device)
        with torch.enable_grad():
            logits = self._linear(F.normalize(features_bD.detach().float(), dim=1) * features_bD.shape[1] ** 0.5)
            losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        known = (labels >= 0).sum()
        correct = ((logits.argmax(1) == labels) & (labels >= 0)).sum()
        self._tally += torch.stack([losses.detach().double(), correct.double(), known.double()])
        total = distributed.all_reduce_sum(known.double()).clamp(min=1)
        self._optimizer.zero_grad()
        losses.backward()
        for parameter in self._linear.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(distributed.all_reduce_sum(parameter.grad) / total)
        self._optimizer.step()

    def read(self) -> dict[str, float]:
        """Loss and accuracy since the last call; empty where no image had a label."""
        loss, correct, known = distributed.all_reduce_sum(self._tally).tolist()
        self._tally.zero_()
        return {"probe_loss": loss / known, "probe_accuracy": correct / known} if known else {}


KnnAccuracy = Callable[[Backbone], float]
"""Accuracy, 0..1, of nearest neighbours on the validation split, by a backbone in evaluation mode."""


def accuracy_in_eval_mode(backbone: Backbone, accuracy: KnnAccuracy) -> float:
    """The accuracy with the backbone in evaluation mode; its training mode is restored."""
    training = backbone.training
    backbone.eval()
    try:
        return accuracy(backbone)
    finally:
        backbone.train(training)
