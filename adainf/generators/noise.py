"""Noise addressed by sample index: any shard can be made again alone, on another machine, in another batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def initial_noise(seed: int, indices: range, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of each sample: len(indices) x shape, float32, a function of (seed, index) alone.

    Drawn on the CPU by counter-based Philox: the streams of other devices and of other batch sizes would differ.
    """
    noise = np.empty((len(indices), *shape), np.float32)
    for row, index in enumerate(indices):
        # The index fills the counter's highest word, so that two samples never share a block of the stream.
        bits = np.random.Philox(key=seed, counter=[0, 0, 0, index])
        noise[row] = np.random.Generator(bits).standard_normal(shape, np.float32)
    return torch.from_numpy(noise)
