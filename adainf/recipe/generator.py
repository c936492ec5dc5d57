"""The generator, or images that take its place."""

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


class HeunSampler(Section):
    """EDM's deterministic second-order sampler (Karras et al. 2022, algorithm 1)."""

    steps: PositiveInt = 18
    """Noise levels; costs 2 x steps - 1 evaluations of the network."""
    sigma_min: Positive = 0.002
    """Least noise level, in units of images in -1..1."""
    sigma_max: Positive = 80.0
    """Noise level that sampling starts from."""
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    """Exponent of the levels' spacing (equation 5); larger puts more of them at low noise."""
    batch: PositiveInt = 256
    """Images sampled together. Part of the identity: another batch size may differ in the last bit."""

    @model_validator(mode="after")
    def _levels_descend(self) -> HeunSampler:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"needs sigma_min below sigma_max, not {self.sigma_min:g} and {self.sigma_max:g}")
        return self


class EdmGenerator(Section):
    """Diffusion with EDM preconditioning, fitted on the real training images only, without labels."""

    kind: Literal["edm"]
    unet: Unet = Unet()
    """The network; wide ones want a GPU."""
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
    noise_log_mean: float = -1.2
    """P_mean of ln(sigma) in training (Karras et al. 2022, table 1)."""
    noise_log_std: Positive = 1.2
    """P_std of ln(sigma) in training."""
    horizontal_flip: bool = False
    """Fit on mirrored images too."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the loss is float32."""
    checkpoint_every_steps: PositiveInt = 1000
    """Most steps that a kill can lose; no part of the identity."""
    seed: Seed = 0
    """Of initial weights, order of images and noise."""
    sampler: HeunSampler = HeunSampler()
    """How `generate` samples; no part of the fit."""


class Provenance(Section):
    """What the user declares about images that the run did not generate itself; copied into manifest and report."""

    generator: str
    """Name of the generative model, for example "STF (Xu et al. 2023), NCSN++"."""
    trained_on: str
    """The images it was fitted on, for example "CIFAR-10 train, the 50,000 images of this recipe"."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering; the method's claim needs false."""
    source: str = ""
    """Where the images came from: address, date, licence."""


class ImportedImages(Section):
    """Images that exist already take the place of `fit` and `generate`."""

    kind: Literal["import"]
    format: Literal["npz", "shards", "folder"]
    """What lies at `path`."""
    path: str
    """The .npz (`image` uint8 N x H x W x 3), the folder of tar shards, or the image folder. Not part of the identity."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order in which the file holds the channels; an order that contradicts the real images' means is refused."""
    provenance: Provenance
    """Where the images came from, as the user declares it."""


Generator = Annotated[EdmGenerator | ImportedImages, Field(discriminator="kind")]


class Generate(Section):
    images: PositiveInt | None = None
    """How many images to generate; null takes all of an import, and is refused for a fitted generator.

    Raised later, `generate` extends the set and leaves what is there as it is; the number before must have been a multiple
    of `shard_images`."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard; also the most that a stop can lose."""
    compression: Literal["stored", "deflate"] = "stored"
    """Of the PNGs: stored ones are a quarter larger, many times as fast to write and to read, and the same bytes everywhere."""
    seed: Seed = 0
    """Image i is a function of the generator, this seed and i alone."""
