"""What the loop that fits, and the stage that generates, want of a kind of generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pydantic import JsonValue
from torch import Tensor

from adainf.generators.noise import RowRandom
from adainf.shards.format.png import Pixels


class Fitted(NamedTuple):
    """A fitted generator: averaged weights, and what is needed beside the recipe to use them."""

    weights: dict[str, Tensor]
    described: dict[str, JsonValue]


class Trainee(Protocol):
    """A generator while it is fitted: networks, their averages and optimisers; the same on every process of a launch."""

    def step(self, step: int, clean_BCHW: Tensor, random: RowRandom) -> Tensor:
        """Take the optimiser step number `step` on this process's rows of the batch, images in -1..1; returns their loss,
        detached. `random` is that of these rows. Gradients are averaged over the processes (`dist.average_gradients`)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs to go on from here, bit for bit."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...

    def fitted(self) -> Fitted: ...


DrawBatch = Callable[[range], Pixels]
"""Consecutive indices → their images, uint8 N x H x W x 3; always as many as the recipe's `sampler.batch` where bytes count."""
