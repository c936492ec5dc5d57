"""Exponential moving average (EMA) of a generator's weights during the fit."""

from __future__ import annotations

import torch
from torch import nn

from adainf.recipe import FittedGenerator


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, config: FittedGenerator, step: int) -> None:
    """By images seen; the half-life is at most 5 % of them (EDM's ramp-up)."""
    seen = (step + 1) * config.batch
    half_life = min(config.ema_half_life_images, max(0.05 * seen, 1e-8))
    decay = 0.5 ** (config.batch / half_life)
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
