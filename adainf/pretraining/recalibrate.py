"""Batch normalisation of a trained encoder, recalibrated on the real images.

The running statistics of an inflated encoder are those of augmented real and generated images, and it is used on real images.
After training the statistics of each layer are replaced by their mean over batches of real images without augmentation, as in
stochastic weight averaging (Izmailov et al. 2018, section 3.2). Weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from adainf.errors import BadInput
from adainf.evaluation.linear import epoch_order
from adainf.models.backbones import Backbone, build_backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.models.norm import batch_norms
from adainf.recipe import Pretrain
from adainf.shards.format.png import Pixels

MOST_IMAGES, BATCH = 20_480, 512


def check_recalibration(config: Pretrain) -> None:
    """Raise `BadInput` where `pretrain.bn_recalibrate` would have no effect."""
    if config.bn_recalibrate and not batch_norms(build_backbone(config.backbone)):
        raise BadInput(
            f"pretrain.bn_recalibrate is true, but the {config.backbone.name} of this recipe has no batch normalisation; set "
            "bn_recalibrate to false"
        )


def finished_encoder(
    config: Pretrain, backbone: Backbone, normalisation: Normalisation, images: Callable[[], Pixels], device: torch.device
) -> Encoder:
    """The encoder of a trained backbone; `images` returns the real training images, N x H x W x 3, and is called only where
    `pretrain.bn_recalibrate` is set.

    Every process computes all statistics from the same batches without collectives, so they do not depend on the number of
    processes. At most 20,480 images, by a fixed permutation, in batches of nearly equal size, at most 512.
    """
    if not config.bn_recalibrate:
        return Encoder(config.backbone, backbone, normalisation)
    plain = build_backbone(config.backbone)  # its layers are not synchronised
    plain.load_state_dict(backbone.state_dict())
    layers = [layer for layer in batch_norms(plain) if isinstance(layer, _BatchNorm)]
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    encoder = Encoder(config.backbone, plain.to(device).train(), normalisation)
    pixels = images()
    order = epoch_order(len(pixels), 0)[:MOST_IMAGES]
    with torch.no_grad():
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            encoder(torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device))
    for layer, before in zip(layers, momentum, strict=True):
        layer.momentum = before
    return encoder.eval()
