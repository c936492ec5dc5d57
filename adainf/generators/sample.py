"""Generated images by index: the same bytes for an index whichever shard, process or order it is made in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from adainf.generators.edm import DenoiserFn, sample_heun, to_pixels
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
    advance: Callable[[int], None] = lambda images: None,
) -> Pixels:
    """The images of `indices`, n x H x W x 3 uint8.

    `advance` is told the images done. Always sampled in batches of `sampler.batch`, the last one padded: another batch
    size may change the last bit.
    """
    parts = []
    for first in range(indices.start, indices.stop, sampler.batch):
        batch = range(first, first + sampler.batch)
        noise = initial_noise(seed, batch, (3, *size_px)).to(device)
        parts.append(to_pixels(sample_heun(denoiser, noise, sampler)).cpu().numpy())
        advance(min(sampler.batch, indices.stop - first))
    return np.concatenate(parts)[: len(indices)]
