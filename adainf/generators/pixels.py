"""Conversion between uint8 pixels and the range -1..1 of the networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adainf.errors import StageFailed
from adainf.shards.format.png import Pixels


def to_unit(images_BHWC: Tensor) -> Tensor:
    """uint8 B x H x W x 3 → float32 B x 3 x H x W in -1..1."""
    return images_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x_BCHW: Tensor) -> Tensor:
    """-1..1 B x 3 x H x W → uint8 B x H x W x 3, rounded and clipped.

    Raises `StageFailed` for NaN and infinities, which uint8 would hide.
    """
    if not x_BCHW.isfinite().all():
        raise StageFailed(
            "generate: the generator returned NaN or infinite values, and no part of this shard was written; set precision of "
            "generator and generator.sampler to no, or lower generator.learning_rate, and choose another --run"
        )
    return ((x_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def deviation(images: Pixels) -> float:
    """Standard deviation of the values of N x H x W x 3 uint8 images in -1..1: EDM's sigma_data."""
    parts = (images[first : first + 1024] for first in range(0, len(images), 1024))  # bincount needs 8 bytes per value
    # Integer counts: exact in any order of summation.
    counts = np.sum([np.bincount(part.reshape(-1), minlength=256) for part in parts], axis=0)
    values = np.arange(256) / 127.5 - 1
    mean = (counts * values).sum() / counts.sum()
    return float(max((counts * (values - mean) ** 2).sum() / counts.sum(), 1e-4) ** 0.5)
