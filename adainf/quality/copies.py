"""Memorization and contamination: whether generated images are near-duplicates or exact copies of training images, exact copies
of held-out images, or repeat each other."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.quality.pairwise import Features, Neighbours, nearest
from adainf.shards.format.png import Pixels

PixelHashes = NDArray[np.int64]
COPY_RATIO = 1 / 3
"""An image counts as a near-duplicate where d1 / d2, the distances to its two nearest training images, is below this."""


def copy_rate(found: Neighbours) -> float:
    """Share of near-duplicates: d1 / d2 < 1/3, the pixel distances to the nearest and the second nearest training image
    (Yoon et al. 2023). A distance of 0 counts, even where both are 0."""
    first, second = found.distances[:, 0], found.distances[:, 1]
    return float(np.mean((first < COPY_RATIO * second) | (first == 0)))


def authenticity(found: Neighbours, training_ND: Features, device: torch.device) -> float:
    """AuthPct as a fraction (Alaa et al. 2022): share of images that are farther from their nearest training image
    than that training image is from its own nearest neighbour.

    Poor images score high. A value *below* that of held-out real images indicates memorization. `found`: the neighbours of the
    images among `training_ND`.
    """
    owners, which = np.unique(found.indices[:, 0], return_inverse=True)
    apart = nearest(training_ND[owners], training_ND, 2, device).distances[:, 1]  # the first neighbour is the image itself
    return float(np.mean(found.distances[:, 0] > apart[which]))


def pixel_hashes(images: Pixels) -> PixelHashes:
    """N: a 64-bit hash of each image's pixels. A set of a million images has a collision with probability 1 in 40 million."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little", signed=True) for image in images],
        np.int64,
    )


def duplicate_rate(hashes: PixelHashes) -> float:
    """Share of images whose pixels equal those of an earlier image."""
    return 1 - len(np.unique(hashes)) / len(hashes)


def held_out_copied(hashes: PixelHashes, training: PixelHashes, held_out: PixelHashes) -> float:
    """Share of the held-out images that an image copies exactly. An image that is a training image, too, does not count."""
    return float(np.mean(np.isin(held_out, np.setdiff1d(hashes, training))))


def exact_copy_rate(hashes: PixelHashes, training: PixelHashes) -> float:
    """Share of images whose pixels equal those of a training image."""
    return float(np.mean(np.isin(hashes, training)))
