"""Generative models, fitted on the run's own real images only and without labels: one file a kind, and this registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from adainf.generators.diffusion import DiffusionFit, open_diffusion
from adainf.generators.gan import GanFit, open_gan
from adainf.generators.kind import DrawBatch, Trainee


class Kind(NamedTuple):
    begin: Callable[..., Trainee]
    """(config, images N x H x W x 3 uint8, device) → a generator before its first step."""
    open: Callable[..., DrawBatch]
    """(config, fitted, size in px, seed, device) → how its images are drawn."""


KINDS: dict[str, Kind] = {"diffusion": Kind(DiffusionFit, open_diffusion), "gan": Kind(GanFit, open_gan)}
"""By `generator.kind` of the recipe."""
