"""The smallest diffusion models, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from adainf.recipe import Diffusion
from adainf.shards.format.png import Pixels

OBJECTIVES: dict[str, dict[str, Any]] = {
    "edm": {"kind": "edm"},
    "stf": {"kind": "stf", "reference_images": 24},
    "ddpm": {"kind": "ddpm"},
    "ddpm-stf": {"kind": "ddpm", "schedule": "cosine", "timesteps": 50, "reference_images": 24},
}


def diffusion(**settings: Any) -> Diffusion:
    unet = {"channels": 8, "multipliers": [1, 2], "attention_below_px": 4}
    return Diffusion.model_validate({"kind": "diffusion", "steps": 10, "batch": 8, "unet": unet, **settings})


def noise_images(count: int, size_px: int = 8) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def shake(module: nn.Module) -> None:
    """Weights away from where branches start at nothing and have no gradient."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
