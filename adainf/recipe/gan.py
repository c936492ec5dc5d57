"""Generative adversarial networks: two networks, what each learns, and how images are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.diffusion import FittedGenerator
from adainf.recipe.sections import NotNegative, PositiveInt, Rate, Section, Width

Beta = Annotated[float, Field(ge=0, lt=1)]
Augment = Literal["colour", "translation", "cutout"]


class GanSampler(Section):
    """How images come from latents: one evaluation of the generator."""

    batch: PositiveInt = 256
    """Images drawn together. Part of the identity: another batch size may differ in the last bit."""


class Gan(FittedGenerator):
    """A generative adversarial network: non-saturating logistic loss with R1 and DiffAugment."""

    kind: Literal["gan"]
    channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 128)
    """Of both networks at each resolution, from full downward; multiples of 8; each further one halves the image."""
    latent: Width = 64
    """Values of the latent that an image is made from."""
    batch: PositiveInt = 64
    """Images per optimiser step, and as many generated ones."""
    learning_rate: Rate = 1e-3
    """Of Adam, for both networks, constant after the warm-up."""
    adam_betas: tuple[Beta, Beta] = (0.0, 0.99)
    """Of Adam. Momentum harms here: each network's loss changes with the other."""
    r1_gamma: NotNegative = 0.1
    """Weight of the R1 penalty (Mescheder et al. 2018); larger is calmer and slower. 0 for none."""
    r1_every_steps: PositiveInt = 16
    """The penalty is taken at every so many steps, so many times as large (Karras et al. 2020, "lazy")."""
    augment: tuple[Augment, ...] = ("colour", "translation", "cutout")
    """DiffAugment: what the discriminator's images, real and generated, go through; the fewer real images, the more."""
    sampler: GanSampler = GanSampler()
    """How `generate` samples; no part of the fit."""
