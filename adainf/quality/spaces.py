"""Feature spaces: a randomly initialised network, the run's own encoder, and Inception if its weights are provided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adainf import recipe
from adainf.errors import BadInput
from adainf.evaluation.features import extract
from adainf.models.backbones import build_backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.records import sha256
from adainf.runtime.determinism import seeded_init
from adainf.shards.format.png import Pixels

RANDOM_SEED = 0
_CALIBRATION_BATCH = 256


@dataclass(frozen=True)
class Space:
    """A network that maps images to features."""

    name: str
    sha256: str
    """Of the weights file: scores of different networks must not be compared."""
    compute: Callable[[Pixels], NDArray[np.float32]]

    def features(self, images: Pixels, what: str) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 → N x D. Raises `BadInput` if a feature is not finite; `what` names the images."""
        found = self.compute(images)
        if not np.isfinite(found).all():
            raise BadInput(
                f"the encoder of space {self.name} gives features that are not finite for the {what} images; train it again "
                "with a lower pretrain.optimizer.learning_rate, or remove arm none from arms to measure without it"
            )
        return found


def of_encoder(name: str, encoder: Encoder, batch: int, device: torch.device) -> Space:
    """The space of an encoder's features."""
    return Space(name, sha256(encoder.to_bytes()), lambda images: extract(encoder, images, batch, device))


def random_encoder(images: Pixels, normalisation: Normalisation) -> Encoder:
    """A small randomly initialised ResNet (fixed seed, 128 features) with batch-norm statistics of these real images.

    It needs no training and no labels. It responds to texture and noise more than to content, so use it to compare samples of
    one sampler.
    """
    config = recipe.Backbone(name="resnet-small")
    with seeded_init(RANDOM_SEED):
        encoder = Encoder(config, build_backbone(config), normalisation).train()
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # cumulative mean over all batches
    with torch.no_grad():
        for part in np.array_split(images, -(-len(images) // _CALIBRATION_BATCH)):
            encoder(torch.from_numpy(part))
    return encoder.eval()
