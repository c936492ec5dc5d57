"""How encoders are judged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adainf.recipe.sections import Positive, PositiveInt, Section


class Evaluate(Section):
    """One protocol for all arms: frozen backbone, features of the un-augmented images, probes fitted on train labels."""

    knn_neighbours: PositiveInt = 20
    """Nearest training images, by cosine, that vote."""
    l2_grid: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """L2 penalties (per image) of the linear probe that the validation split chooses from."""
    batch: PositiveInt = 512
    """Images whose features are computed together; no part of the identity."""
