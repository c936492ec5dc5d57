"""Counter-based random numbers: addressed by sample index, or by step and row of the fit, not drawn in sequence.

Philox on the CPU, since streams of other devices and batch sizes differ. The highest words of the counter are the address, so
that no two addresses share a block of the stream.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adainf.runtime.determinism import to_device

_SAMPLING, _FIT, _CANDIDATES = 0, 1, 2


def initial_noise(seed: int, indices: range, shape: tuple[int, ...], step: int = 0, candidate: int | None = None) -> Tensor:
    """Standard normal noise of each sample: len(indices) x shape, float32, a function of (seed, index, step, candidate).

    Step 0 is the initial noise; a stochastic sampler adds that of later steps. Any shard can be regenerated separately, on
    another machine, in another batch. `candidate`: number of a positive of real image `index`; None: generated image `index`.
    """
    use = _SAMPLING if candidate is None else _CANDIDATES + candidate
    noise = np.empty((len(indices), *shape), np.float32)
    for row, index in enumerate(indices):
        noise[row] = _generator(seed, use, step, index).standard_normal(shape, np.float32)
    return torch.from_numpy(noise)


class RowRandom:
    """The random numbers of one step of the fit, on `device`.

    Each row of the global batch has its own stream, so they depend on (seed, step, row) and not on the number of processes.
    Successive calls advance the streams.
    """

    def __init__(self, seed: int, step: int, rows: range, device: torch.device) -> None:
        self._device = device
        self._generators = [_generator(seed, _FIT, step, row) for row in rows]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, rows x shape, float32."""
        return self._stack([generator.standard_normal(shape, np.float32) for generator in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), rows x shape, float32."""
        return self._stack([generator.random(shape, np.float32) for generator in self._generators])

    def _stack(self, drawn: list[object]) -> Tensor:
        return to_device(torch.from_numpy(np.array(drawn)), self._device)


def _generator(seed: int, use: int, step: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, use, step, row]))
