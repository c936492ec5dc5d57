"""Diffusion models: objective, network and sampler; and the settings that all fitted generators share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Positive, PositiveInt, Rate, Section, Seed, Width


class Unet(Section):
    """The network of a diffusion model."""

    kind: Literal["small", "diffusers"] = "small"
    """`small`: AdaInf's own, for CPUs and images of a few dozen pixels. `diffusers`: UNet2DModel of that library."""
    channels: Width = 32
    """Channels at full resolution; a multiple of 8."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2)
    """Channel multiplier at each resolution, from full resolution down; each further one halves the image."""
    attention_below_px: int = 8
    """Maximum width of the feature maps that have self-attention; 0 for none."""
    blocks: PositiveInt = 1
    """Residual blocks per resolution; `small` has one."""

    @model_validator(mode="after")
    def _small_is_small(self) -> Unet:
        if self.kind == "small" and self.blocks != 1:
            raise ValueError(
                f"of kind small has one block per resolution, not {self.blocks}; set kind: diffusers, or blocks: 1"
            )
        return self


class _LogNormalNoise(Section):
    noise_log_mean: float = -1.2
    """P_mean: mean of ln(sigma) in training."""
    noise_log_std: Positive = 1.2
    """P_std: standard deviation of ln(sigma) in training."""


class Edm(_LogNormalNoise):
    """Denoising score matching with EDM's preconditioning, noise levels and loss weight (Karras et al. 2022, table 1)."""

    kind: Literal["edm"]


class Stf(_LogNormalNoise):
    """EDM with the stable target field (Xu et al. 2023): the target is the mean of a reference batch, weighted by the posterior
    probability of each reference image given the noisy one."""

    kind: Literal["stf"]
    reference_images: PositiveInt = 1024
    """Images per reference batch; it starts with the mini-batch."""


class Ddpm(Section):
    """Noise prediction at discrete timesteps (Ho et al. 2020)."""

    kind: Literal["ddpm"]
    schedule: Literal["linear", "cosine"] = "linear"
    """`linear`: Ho et al. 2020. `cosine`: Nichol and Dhariwal 2021, for small images and few steps."""
    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Noise levels of the schedule."""
    reference_images: PositiveInt | None = None
    """Images per reference batch of the stable target field; null trains on the clean image as target."""


Objective = Annotated[Edm | Stf | Ddpm, Field(discriminator="kind")]


class Sampler(Section):
    """How images are sampled from noise."""

    kind: Literal["heun", "dpmpp2m", "ddim", "ancestral"] = "heun"
    """`heun`: EDM's deterministic second-order sampler (Karras et al. 2022, algorithm 1), 2 x steps - 1 evaluations of the
    network. `dpmpp2m`: DPM-Solver++(2M) (Lu et al. 2022), second order, one evaluation per step. `ddim`: first order (Song et
    al. 2021), one evaluation per step. `ancestral`: DDPM's, adds fresh noise in each step, one evaluation per step."""
    steps: PositiveInt = 18
    """Number of noise levels. `ddim` and `ancestral` take them from the schedule of objective `ddpm`, evenly spaced."""
    sigma_min: Positive = 0.002
    """Minimum noise level, in units of images in -1..1."""
    sigma_max: Positive = 80.0
    """Maximum noise level, at which sampling starts."""
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    """Exponent of the spacing of levels (equation 5); a larger one puts more levels at low noise."""
    batch: PositiveInt = 256
    """Images sampled together. Part of the request: another batch size may change the last bit."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the steps themselves are float64."""

    @property
    def by_timestep(self) -> bool:
        """Whether it takes its noise levels from the schedule of the objective, if that has one."""
        return self.kind in ("ddim", "ancestral")

    @model_validator(mode="after")
    def _levels_descend(self) -> Sampler:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"needs sigma_min below sigma_max, not {self.sigma_min:g} and {self.sigma_max:g}; lower sigma_min")
        return self


class FittedGenerator(Section):
    """Settings of every generator that `fit` fits: on the real training images only, without labels."""

    implementation: ClassVar[str]
    """Its `GeneratorKind`, "module:name"."""

    steps: PositiveInt
    """Optimiser steps of the fit."""
    batch: PositiveInt = 128
    """Images per optimiser step."""
    learning_rate: Rate = 1e-3
    """Of Adam, constant after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up of the learning rate."""
    ema_half_life_images: PositiveInt = 500_000
    """Half-life of the moving average of the weights, in training images; shorter at the start (EDM's ramp-up of 5 %)."""
    horizontal_flip: bool = False
    """Fit on mirrored images too. A diffusion model is conditioned on mirroring and samples unmirrored images."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the loss is float32."""
    checkpoint_every_steps: PositiveInt = 1000
    """Maximum number of steps that a kill loses; not part of the request."""
    seed: Seed = 0
    """Of initial weights, order of images and noise."""


class Diffusion(FittedGenerator):
    """A diffusion model."""

    implementation = "adainf.generators.diffusion:KIND"
    kind: Literal["diffusion"]
    objective: Objective = Edm(kind="edm")
    """Training target of the network."""
    unet: Unet = Unet()
    """The network; wide ones need a GPU."""
    sampler: Sampler = Sampler()
    """How `generate` samples; not part of the request of the fit."""

    @model_validator(mode="after")
    def _fits_together(self) -> Diffusion:
        if self.reference_images is not None and self.reference_images < self.batch:
            raise ValueError(
                f"has objective.reference_images {self.reference_images}, below batch {self.batch}, which it contains; raise "
                "objective.reference_images"
            )
        objective, sampler = self.objective, self.sampler
        if isinstance(objective, Ddpm) and sampler.by_timestep and sampler.steps > objective.timesteps:
            raise ValueError(
                f"has sampler.steps {sampler.steps}, above objective.timesteps {objective.timesteps}; lower sampler.steps"
            )
        return self

    @property
    def reference_images(self) -> int | None:
        """Images per reference batch of the stable target field; None where the clean image is the target."""
        return None if isinstance(self.objective, Edm) else self.objective.reference_images
