"""Generative adversarial networks: both networks, their losses and the sampler."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.diffusion import FittedGenerator
from adainf.recipe.sections import NotNegative, PositiveInt, Rate, Section, Width

Beta = Annotated[float, Field(ge=0, lt=1)]
Augment = Literal["colour", "translation", "cutout"]


class GanSampler(Section):
    """How images are sampled: one evaluation of the generator per latent."""

    batch: PositiveInt = 256
    """Images sampled together. Part of the request: another batch size may change the last bit."""


class Gan(FittedGenerator):
    """A generative adversarial network: non-saturating logistic loss with R1 and DiffAugment."""

    implementation = "adainf.generators.gan:KIND"
    kind: Literal["gan"]
    channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 128)
    """Of both networks at each resolution, from full resolution down; multiples of 8; each further one halves the image."""
    latent: Width = 64
    """Dimensions of the latent."""
    batch: PositiveInt = 64
    """Real images per optimiser step, and as many generated ones."""
    learning_rate: Rate = 1e-3
    """Of Adam, for both networks, constant after the warm-up."""
    adam_betas: tuple[Beta, Beta] = (0.0, 0.99)
    """Of Adam. beta_1 is 0: the loss of each network changes with the other, and momentum is harmful."""
    r1_gamma: NotNegative = 0.1
    """Weight of the R1 penalty (Mescheder et al. 2018); a larger one is more stable and slower. 0 for none."""
    r1_every_steps: PositiveInt = 16
    """Interval of the penalty, which is scaled by it ("lazy regularization", Karras et al. 2020)."""
    augment: tuple[Augment, ...] = ("colour", "translation", "cutout")
    """DiffAugment of the discriminator's images, real and generated; use more of it for fewer real images."""
    sampler: GanSampler = GanSampler()
    """How `generate` samples; not part of the request of the fit."""
