"""Diffusion models: what is learned, by which network, and how images are sampled from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Positive, PositiveInt, Rate, Section, Seed, Width


class Unet(Section):
    kind: Literal["small", "diffusers"] = "small"
    """`small`: our own, for CPUs and images of a few dozen pixels; `diffusers`: UNet2DModel of that library, for full size."""
    channels: Width = 32
    """Channels at full resolution; a multiple of 8."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2)
    """Channel multiplier at each resolution, from full downward; each further one halves the image."""
    attention_below_px: int = 8
    """Self-attention where the feature map is at most this wide; 0 for none."""
    blocks: PositiveInt = 1
    """Residual blocks at each resolution; `small` has one."""

    @model_validator(mode="after")
    def _small_is_small(self) -> Unet:
        if self.kind == "small" and self.blocks != 1:
            raise ValueError(f"of kind small has one block at each resolution, not {self.blocks}; set kind: diffusers")
        return self


class _LogNormalNoise(Section):
    noise_log_mean: float = -1.2
    """P_mean of ln(sigma) in training."""
    noise_log_std: Positive = 1.2
    """P_std of ln(sigma) in training."""


class Edm(_LogNormalNoise):
    """Denoising score matching with EDM's preconditioning, noise and weight (Karras et al. 2022, table 1)."""

    kind: Literal["edm"]


class Stf(_LogNormalNoise):
    """EDM with the stable target field (Xu et al. 2023): the target is the mean over a reference batch, weighted by how likely
    each of its images is behind the noisy one."""

    kind: Literal["stf"]
    reference_images: PositiveInt = 1024
    """Images of a reference batch; its first are the mini-batch."""


class Ddpm(Section):
    """The noise in an image is learned, at discrete timesteps (Ho et al. 2020)."""

    kind: Literal["ddpm"]
    schedule: Literal["linear", "cosine"] = "linear"
    """`linear`: as Ho et al. have it; `cosine`: Nichol and Dhariwal 2021, for few steps of small images."""
    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Noise levels of the schedule."""
    reference_images: PositiveInt | None = None
    """Images of the stable target field's reference batch; null learns from the clean image alone."""


Objective = Annotated[Edm | Stf | Ddpm, Field(discriminator="kind")]


class Sampler(Section):
    """How images come from noise."""

    kind: Literal["heun", "dpmpp2m", "ddim", "ancestral"] = "heun"
    """`heun`: EDM's deterministic second-order sampler (Karras et al. 2022, algorithm 1), 2 x steps - 1 evaluations of the
    network. `dpmpp2m`: DPM-Solver++(2M) (Lu et al. 2022), second order, one evaluation a step. `ddim`: first order (Song et
    al. 2021), one a step. `ancestral`: DDPM's, which adds fresh noise in each step, one evaluation a step."""
    steps: PositiveInt = 18
    """Noise levels. `ddim` and `ancestral` take them from the schedule of objective `ddpm`, evenly spaced."""
    sigma_min: Positive = 0.002
    """Least noise level, in units of images in -1..1."""
    sigma_max: Positive = 80.0
    """Noise level that sampling starts from."""
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    """Exponent of the levels' spacing (equation 5); larger puts more of them at low noise."""
    batch: PositiveInt = 256
    """Images sampled together. Part of the identity: another batch size may differ in the last bit."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the steps themselves are float64."""

    @property
    def by_timestep(self) -> bool:
        """Whether it takes its levels from a schedule, where the objective has one."""
        return self.kind in ("ddim", "ancestral")

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
    """Fit on mirrored images too; a diffusion model is told which are, and samples none."""
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

    @model_validator(mode="after")
    def _fits_together(self) -> Diffusion:
        if self.reference_images is not None and self.reference_images < self.batch:
            raise ValueError(
                f"has objective.reference_images {self.reference_images}, below batch {self.batch}, whose images are its "
                "first; raise it"
            )
        objective, sampler = self.objective, self.sampler
        if isinstance(objective, Ddpm) and sampler.by_timestep and sampler.steps > objective.timesteps:
            raise ValueError(
                f"has sampler.steps {sampler.steps}, more than the {objective.timesteps} of objective.timesteps; lower it"
            )
        return self

    @property
    def reference_images(self) -> int | None:
        """Of the stable target field; None where the clean image itself is the target."""
        return None if isinstance(self.objective, Edm) else self.objective.reference_images
