"""The moving average of the weights of a generator while it is fitted."""

from __future__ import annotations

import torch
from torch import nn

from adainf.recipe import FittedGenerator


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, config: FittedGenerator, step: int) -> None:
    """Exponential, by images seen, its half-life at most 5 % of them (EDM's ramp-up)."""
    seen = (step + 1) * config.batch
    half_life = min(config.ema_half_life_images, max(0.05 * seen, 1e-8))
    keep = 0.5 ** (config.batch / half_life)
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
