"""A minimal external generator: a Gaussian in the space of the real images' principal components.

    python external_gaussian.py CHECKPOINT FIRST COUNT SEED OUTPUT      as generator.command
    external_gaussian:generate                                          as generator.callable

The checkpoint is an .npz with `mean`, H x W x 3 in 0..255, and `directions`, K x H x W x 3, each scaled to the standard
deviation of the real images along it. It requires only numpy. docs/generators-external.md specifies the interface.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def latent(seed: int, index: int, size: int) -> np.ndarray:
    """Standard normal numbers that depend only on seed and index, so each image is reproducible without the others."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index])).standard_normal(size)


def generate(checkpoint: Path, indices: range, seed: int) -> np.ndarray:
    """The images with these indices, n x H x W x 3 uint8 RGB."""
    with np.load(checkpoint, allow_pickle=False) as model:
        mean, directions = model["mean"], model["directions"]
    latents = np.stack([latent(seed, index, len(directions)) for index in indices])
    return np.clip(np.rint(mean + np.tensordot(latents, directions, 1)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    checkpoint, first, count, seed, output = Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5])
    np.save(output, generate(checkpoint, range(first, first + count), seed), allow_pickle=False)
