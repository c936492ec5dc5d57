"""The labelling error of views, estimated by a classifier that was trained on views of all strengths."""

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
    profiles: Sequence[Profile],
    steps: int,
    batch: int,
    normalisation: Normalisation,
    device: torch.device,
) -> nn.Module:
    """A classifier B x 3 x H x W → B x classes (0 … the largest label), trained on the true labels.

    It is trained on views of all `profiles` in turn, so that it fails on views that lost their class and not on unfamiliar
    ones. AdamW with cosine decay; a deterministic function of its arguments.
    """
    with seeded_init(0):
        features = build_backbone(backbone)
        network = nn.Sequential(features, nn.Linear(features.num_features, int(train.labels.max()) + 1)).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    for step in range(steps):
        # A new permutation per step, so that each batch is sampled from the complete set without replacement.
        rows = np.sort(epoch_order(len(train.labels), step)[:batch])
        profile = profiles[step % len(profiles)]
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
    """Share of views that `evaluator` assigns to another class than their image's: alpha plus the evaluator's own errors."""
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
