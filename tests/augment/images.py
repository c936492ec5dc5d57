"""Images and profiles that the tests of augmentation share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adainf.augment.profiles import Profile

NOTHING = Profile(
    min_scale=1.0,
    jitter_probability=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    grayscale_probability=0,
    blur_probability=0,
    solarize_probability=0,
    flip_probability=0,
)
FULL = Profile(
    min_scale=0.08,
    jitter_probability=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    grayscale_probability=0.2,
    blur_probability=0.5,
    solarize_probability=0.2,
    flip_probability=0.5,
)


def images(count: int, height: int = 12, width: int = 12, seed: int = 0) -> Tensor:
    """B x H x W x 3 uint8 noise, a few pixels of it grey, black and white."""
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
    x[:, 0, 0] = x[:, 0, 0, :1]
    x[:, -1, 0] = 0
    x[:, 0, -1] = 255
    return x


def unit(x_BHWC: Tensor) -> Tensor:
    """B x 3 x H x W floats of 0..1."""
    return x_BHWC.permute(0, 3, 1, 2).float() / 255
