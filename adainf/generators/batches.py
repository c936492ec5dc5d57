"""The images and random numbers of a step of the fit: functions of (seed, step)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adainf.generators.noise import RowRandom
from adainf.generators.pixels import to_unit
from adainf.recipe import FittedGenerator
from adainf.runtime import distributed
from adainf.runtime.determinism import to_device
from adainf.shards.format.png import Pixels
from adainf.shards.loader.mixture import MixtureSchedule


class Batches:
    """Batches of the real training images (N x H x W x 3 uint8) on `device`; each process gets contiguous rows."""

    def __init__(self, config: FittedGenerator, images: Pixels, device: torch.device) -> None:
        self._batch, self._seed, self._device = config.batch, config.seed, device
        self._images = torch.from_numpy(images)
        self._schedule = MixtureSchedule([len(images)], [1.0], config.seed)
        self._others = MixtureSchedule([len(images)], [1.0], config.seed + 2**32)  # seeds of recipes are below 2^32

    def at(self, step: int) -> tuple[Tensor, RowRandom]:
        """Clean images of the step for this process, b x 3 x H x W in -1..1, and its random numbers."""
        own = self._batch // distributed.world_size()
        rows = range(distributed.rank() * own, (distributed.rank() + 1) * own)
        clean = self._take(self._schedule, range(step * self._batch + rows.start, step * self._batch + rows.stop))
        return clean, RowRandom(self._seed, step, rows, self._device)

    def reference(self, step: int, count: int) -> Tensor:
        """The images of all processes in this step, then further ones: `count` x 3 x H x W, the same on every process."""
        others = count - self._batch
        batch = self._take(self._schedule, range(step * self._batch, (step + 1) * self._batch))
        return torch.cat([batch, self._take(self._others, range(step * others, (step + 1) * others))])

    def _take(self, schedule: MixtureSchedule, positions: range) -> Tensor:
        _, indices = schedule.at(np.arange(positions.start, positions.stop))
        return to_unit(to_device(self._images[indices], self._device))
