"""Fine-tuning of the complete network on the labels of all or a fraction of the training images."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from adainf.evaluation.features import extract
from adainf.evaluation.linear import epoch_order
from adainf.models.encoder import Encoder
from adainf.recipe import Finetune
from adainf.runtime.determinism import seeded_init
from adainf.shards.loader.read_all import Labelled

MOMENTUM = 0.9


def finetune_hits(
    encoder: Encoder, train: Labelled, test: Labelled, config: Finetune, seed: int, device: torch.device
) -> NDArray[np.bool_]:
    """Whether each test image is classified correctly by a copy of the encoder with a linear layer on top, after training both;
    `encoder` is unchanged.

    SGD with momentum 0.9, no weight decay, cosine decay to zero without warm-up, cross entropy on un-augmented images. An
    incomplete last batch of an epoch is dropped, as batch normalisation needs more than one image. `seed` determines the
    labelled images, the layer's initial weights and the order of images.
    """
    images, labels = train
    rows = labelled_rows(labels, config.label_fraction, seed)
    classes, targets_N = np.unique(labels[rows], return_inverse=True)
    tuned = copy.deepcopy(encoder).to(device).train()
    with seeded_init(seed):
        head = nn.Linear(encoder.backbone.num_features, len(classes)).to(device)
    optimizer = torch.optim.SGD([*tuned.parameters(), *head.parameters()], config.learning_rate, MOMENTUM)
    batch = min(config.batch, len(rows))
    steps_an_epoch = len(rows) // batch
    for step in range(steps := config.epochs * steps_an_epoch):
        epoch, at = divmod(step, steps_an_epoch)
        if at == 0:
            order = epoch_order(len(rows), epoch, seed)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = order[at * batch : (at + 1) * batch]
        logits = head(tuned(torch.from_numpy(images[rows[chosen]]).to(device)))
        loss = F.cross_entropy(logits, torch.from_numpy(targets_N[chosen]).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _hits(tuned, head, classes, test, config.batch, device)


def labelled_rows(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Ascending indices of `fraction` of the images of each class, at least one, sampled by `seed`."""
    order = epoch_order(len(labels), 0, seed)
    kept = [order[labels[order] == label] for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[: max(1, round(fraction * len(rows)))] for rows in kept]))


def _hits(
    tuned: Encoder, head: nn.Linear, classes: NDArray[np.int64], test: Labelled, batch: int, device: torch.device
) -> NDArray[np.bool_]:
    features = torch.from_numpy(extract(tuned, test.images, batch, device)).to(device)
    with torch.inference_mode():
        found = head(features).argmax(1).cpu().numpy()
    return np.asarray(classes[found] == test.labels)
