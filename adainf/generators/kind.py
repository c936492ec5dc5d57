"""The interface of a generator kind: how `fit` trains it and how `generate` samples from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pydantic import JsonValue
from torch import Tensor

from adainf.errors import BadInput
from adainf.generators.noise import RowRandom
from adainf.shards.format.png import Pixels


class Fitted(NamedTuple):
    """A fitted generator: averaged weights, and what sampling needs beside the recipe."""

    weights: dict[str, Tensor]
    described: dict[str, JsonValue]


class GeneratorTrainer(Protocol):
    """A generator during the fit: networks, their averages and optimisers; identical on every process of a launch."""

    def step(self, step: int, clean_BCHW: Tensor, random: RowRandom) -> Tensor:
        """Take optimiser step `step` on this process's rows of the batch, images in -1..1; return their loss, detached.

        `random` belongs to these rows. Gradients are averaged over the processes (`distributed.average_gradients`).
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """All tensors that `load` needs to resume bit for bit."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def fitted(self) -> Fitted: ...


DrawBatch = Callable[[range], Pixels]
"""Consecutive indices → their images, uint8 N x H x W x 3. Identical bytes need calls of the same size (`sampler.batch`)."""


class GeneratorKind(NamedTuple):
    """The functions of one kind; `implementation` of its settings class names this object."""

    begin: Callable[..., GeneratorTrainer]
    """(settings, images N x H x W x 3 uint8, device) → the trainer before its first step."""
    open: Callable[..., DrawBatch]
    """(settings, fitted, size in px, seed, device) → the sampler."""
    check: Callable[..., None] = lambda *_: None
    """(settings, their path in the recipe, images, height in px, width in px) → None; raises `BadInput` where the settings do
    not fit the real training images, or a library is missing."""


def check_count(field: str, wanted: int, images: int) -> None:
    """Raise `BadInput` where `wanted`, the value of `field`, exceeds the number of real training images."""
    if wanted > images:
        raise BadInput(f"{field} is {wanted}, more than the {images} real training images; choose at most that")


def check_size(field: str, fits: bool, resolutions: int, height_px: int, width_px: int) -> None:
    """Raise `BadInput` unless `fits`: a network of this depth, set in `field`, cannot take images of this size."""
    if not fits:
        raise BadInput(
            f"{field} with {resolutions} resolutions needs square images of a multiple of {2 ** (resolutions - 1)} px, and "
            f"channels in multiples of 8; the real images are {height_px} x {width_px}: set real.image_size_px, or change "
            f"{field}"
        )
