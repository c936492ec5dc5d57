"""Diffusion models: what is learned, by which network, and how images are sampled from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Positive, PositiveInt, Rate, Section, Seed, Width


class Unet(Section):
    channels: Width = 32
    """Channels at full resolution; a multiple of 8."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2)
    """Channel multiplier at each resolution, from full downward; each further one halves the image."""
    attention_below_px: int = 8
    """Self-attention where the feature map is at most this wide; 0 for none."""


class Edm(Section):
    """Denoising score matching with EDM's preconditioning, noise and weight (Karras et al. 2022, table 1)."""

    kind: Literal["edm"]
    noise_log_mean: float = -1.2
    """P_mean of ln(sigma) in training."""
    noise_log_std: Positive = 1.2
    """P_std of ln(sigma) in training."""


Objective = Annotated[Edm, Field(discriminator="kind")]


class Sampler(Section):
    """How images come from noise."""

    kind: Literal["heun"] = "heun"
    """`heun`: EDM's deterministic second-order sampler (Karras et al. 2022, algorithm 1), 2 x steps - 1 evaluations of the
    network."""
    steps: PositiveInt = 18
    """Noise levels."""
    sigma_min: Positive = 0.002
    """Least noise level, in units of images in -1..1."""
    sigma_max: Positive = 80.0
    """Noise level that sampling starts from."""
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    """Exponent of the levels' spacing (equation 5); larger puts more of them at low noise."""
    batch: PositiveInt = 256
    """Images sampled together. Part of the identity: another batch size may differ in the last bit."""

    @model_validator(mode="after")
    def _levels_descend(self) -> Sampler:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"needs sigma_min below sigma_max, not {self.sigma_min:g} and {self.sigma_max:g}")
        return self


class FittedGenerator(Section):
    """What every generator has that is fitted here: on the real training images only, without labels."""

    steps: PositiveInt
    """Optimiser steps of the fit."""
    batch: PositiveInt = 128
    """Images per optimiser step."""
    learning_rate: Rate = 1e-3
    """Of Adam, constant after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up of the learning rate."""
    ema_half_life_images: PositiveInt = 500_000
    """Half-life of the weights' moving average, in training images; shorter at the start (EDM's ramp-up of 5 %)."""
    horizontal_flip: bool = False
    """Fit on mirrored images too."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the loss is float32."""
    checkpoint_every_steps: PositiveInt = 1000
    """Most steps that a kill can lose; no part of the identity."""
    seed: Seed = 0
    """Of initial weights, order of images and noise."""


class Diffusion(FittedGenerator):
    """A diffusion model."""

    kind: Literal["diffusion"]
    objective: Objective = Edm(kind="edm")
    """What the network learns."""
    unet: Unet = Unet()
    """The network; wide ones want a GPU."""
    sampler: Sampler = Sampler()
    """How `generate` samples; no part of the fit."""
