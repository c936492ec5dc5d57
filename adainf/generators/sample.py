"""Generated images by index: the same bytes for an index whichever shard, process or order it is made in."""

from __future__ import annotations

import numpy as np
import torch

from adainf.generators.edm import DenoiserFn, check_finite, sample_heun, to_pixels
from adainf.generators.noise import initial_noise
from adainf.recipe import HeunSampler
from adainf.shards.png import Pixels


def sample_images(
    denoiser: DenoiserFn,
    sampler: HeunSampler,
    seed: int,
    indices: range,
    size_px: tuple[int, int],
    device: torch.device,
) -> Pixels:
    """The images of `indices`, n x H x W x 3 uint8.

    Always sampled in batches of `sampler.batch`, the last one padded: another batch size may change the last bit. Raises
    `StageFailed` where one is not finite.
    """
    parts = []
    for first in range(indices.start, indices.stop, sampler.batch):
        batch = range(first, first + sampler.batch)
        noise = initial_noise(seed, batch, (3, *size_px)).to(device)
        x_BCHW = sample_heun(denoiser, noise, sampler)
        check_finite(x_BCHW, batch)
        parts.append(to_pixels(x_BCHW).cpu().numpy())
    return np.concatenate(parts)[: len(indices)]
