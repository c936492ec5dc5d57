"""The smallest external generator: normal images around a mean, along the main directions in which the real ones differ.

    python external_gaussian.py CHECKPOINT FIRST COUNT SEED OUTPUT      as generator.command
    external_gaussian:generate                                          as generator.callable

The checkpoint is an .npz with `mean`, H x W x 3 in 0..255, and `directions`, K x H x W x 3, each as long as the real images'
deviation along it. It needs numpy alone. docs/generators-external.md has the contract.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def latent(seed: int, index: int, size: int) -> np.ndarray:
    """Standard normal numbers that depend on seed and index alone: any image can be made again without the others."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index])).standard_normal(size)


def generate(checkpoint: Path, indices: range, seed: int) -> np.ndarray:
    """Images of these indices, n x H x W x 3 uint8 RGB."""
    with np.load(checkpoint, allow_pickle=False) as model:
        mean, directions = model["mean"], model["directions"]
    latents = np.stack([latent(seed, index, len(directions)) for index in indices])
    return np.clip(np.rint(mean + np.tensordot(latents, directions, 1)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    checkpoint, first, count, seed, output = Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5])
    np.save(output, generate(checkpoint, range(first, first + count), seed), allow_pickle=False)
