"""The labelling error of views of images: how often a classifier that was taught on such views takes them for another class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adainf.augment.profiles import Profile
from adainf.augment.views import augment
from adainf.evaluation.linear import epoch_order
from adainf.models.backbones import build_backbone
from adainf.models.encoder import Normalisation
from adainf.recipe import Backbone
from adainf.runtime.determinism import seeded_init
from adainf.shards.loader.read_all import Labelled

_LEARNING_RATE = 1e-3


def train_evaluator(
    train: Labelled,
    backbone: Backbone,
    ladder: Sequence[Profile],
    steps: int,
    batch: int,
    normalisation: Normalisation,
    device: torch.device,
) -> nn.Module:
    """A network B x 3 x H x W → B x classes (0 … the largest label), taught with the images' true labels.

    It sees views of all strengths of `ladder` in turn, so that a view that looks strange is no reason for a mistake, and only
    one that has lost its class is. AdamW with a cosine; a function of its arguments alone.
    """
    with seeded_init(0):
        features = build_backbone(backbone)
        network = nn.Sequential(features, nn.Linear(features.num_features, int(train.labels.max()) + 1)).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    for step in range(steps):
        # Philox by step gives another order each time, so that a batch is drawn from the whole set without replacement.
        rows = np.sort(epoch_order(len(train.labels), step)[:batch])
        profile = ladder[step % len(ladder)]
        (x_BCHW,) = view_images(train.images[rows], rows, step, [profile], normalisation, device)
        targets_B = torch.from_numpy(train.labels[rows]).to(device)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x_BCHW), targets_B).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def labelling_error(
    evaluator: nn.Module, images: Labelled, profile: Profile, views: int, normalisation: Normalisation, device: torch.device
) -> float:
    """The share of views that `evaluator` takes for another class than that of their image: alpha, and its own mistakes."""
    wrong = 0
    with torch.inference_mode():
        for first in range(0, len(images.labels), 256):
            rows = np.arange(first, min(first + 256, len(images.labels)))
            labels_B = torch.from_numpy(images.labels[rows]).to(device)
            for x_BCHW in view_images(images.images[rows], rows, 0, [profile] * views, normalisation, device):
                wrong += int((evaluator(x_BCHW).argmax(dim=1) != labels_B).sum())
    return wrong / (views * len(images.labels))


def view_images(
    images_BHWC: NDArray[np.uint8],
    identities_B: NDArray[np.int64],
    step: int,
    profiles: Sequence[Profile],
    normalisation: Normalisation,
    device: torch.device,
) -> list[torch.Tensor]:
    """`augment` of images in memory, seed 0."""
    images_on_device, identities = torch.from_numpy(images_BHWC).to(device), torch.from_numpy(identities_B)
    return augment(images_on_device, identities, 0, step, profiles, normalisation.mean, normalisation.std)
