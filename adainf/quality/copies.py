"""Whether generated images are new, or copies of training images or of each other."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.quality.pairs import Features, Neighbours, nearest
from adainf.shards.format.png import Pixels

Words = NDArray[np.int64]
COPY_RATIO = 1 / 3
"""An image is a copy where its nearest training image is so much nearer than the next one."""


def copy_rate(found: Neighbours) -> float:
    """Share of images with d1 / d2 < 1/3, by the distances to the nearest and the second nearest training image in pixels
    (Yoon et al. 2023); a distance of 0 is a copy even where both are 0."""
    first, second = found.distances[:, 0], found.distances[:, 1]
    return float(np.mean((first < COPY_RATIO * second) | (first == 0)))


def authenticity(found: Neighbours, training_ND: Features, device: torch.device) -> float:
    """AuthPct as a fraction (Alaa et al. 2022): share of images that are farther from their nearest training image
    than that one is from its own nearest.

    Bad images have much of it; what tells of copying is less than held-out real images have. `found`: the neighbours of the
    images among `training_ND`.
    """
    owners, which = np.unique(found.indices[:, 0], return_inverse=True)
    apart = nearest(training_ND[owners], training_ND, 2, device).distances[:, 1]  # the first is the image itself
    return float(np.mean(found.distances[:, 0] > apart[which]))


def pixel_words(images: Pixels) -> Words:
    """N: 64 bits of a hash of each image's pixels. Among a million images two share one by chance once in 40 million sets."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little", signed=True) for image in images],
        np.int64,
    )


def duplicate_rate(words: Words) -> float:
    """Share of images whose pixels an earlier one has already."""
    return 1 - len(np.unique(words)) / len(words)


def exact_copy_rate(words: Words, training: Words) -> float:
    """Share of images whose pixels a training image has."""
    return float(np.mean(np.isin(words, training)))
