"""The images of a step of a fit, and its random numbers: functions of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adainf.generators.pixels import to_unit
from adainf.recipe import FittedGenerator
from adainf.shards.png import Pixels
from adainf.shards.schedule import MixtureSchedule


class Batches:
    """Batches of the real training images N x H x W x 3 uint8, on `device`."""

    def __init__(self, config: FittedGenerator, images: Pixels, device: torch.device) -> None:
        self._config, self._device = config, device
        self._images = torch.from_numpy(images)
        self._schedule = MixtureSchedule([len(images)], [1.0], config.seed)

    def at(self, step: int) -> tuple[Tensor, np.random.Generator]:
        """The clean images of the step, B x 3 x H x W in -1..1, and the source of its other random numbers, on the CPU."""
        batch = self._config.batch
        _, indices = self._schedule.at(np.arange(step * batch, (step + 1) * batch))
        random = np.random.default_rng([self._config.seed, step])
        clean = to_unit(self._images[indices].to(self._device))
        if self._config.horizontal_flip:
            mirrored = torch.from_numpy(random.random(batch) < 0.5).to(self._device)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        return clean, random
