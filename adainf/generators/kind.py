"""What the loop that fits, and the stage that generates, want of a kind of generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from adainf.shards.png import Pixels


class Fitted(NamedTuple):
    """A fitted generator: averaged weights, and what is needed beside the recipe to use them."""

    weights: dict[str, Tensor]
    described: dict[str, JsonValue]


class Trainee(Protocol):
    """A generator while it is fitted: networks, their averages and optimisers."""

    def step(self, step: int, clean_BCHW: Tensor, random: np.random.Generator) -> Tensor:
        """Take the optimiser step number `step` on images in -1..1; returns the loss, detached. `random` is the step's own."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs to go on from here, bit for bit."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...

    def fitted(self) -> Fitted: ...


DrawBatch = Callable[[range], Pixels]
"""Consecutive indices, always as many as the recipe's `sampler.batch` → their images, uint8 N x H x W x 3."""
