"""How the quality of generated images is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adainf.recipe.sections import PositiveInt, Section


class Inception(Section):
    """Weights of Inception-v3, for numbers that papers have; AdaInf brings none."""

    weights: str
    """torch-fidelity's weights-inception-2015-12-05-6726825d.pth. Not part of the identity."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of that file; another one is refused before it is read."""


class Quality(Section):
    """Generated images against the validation split, each number beside that of as many real training images."""

    images: Annotated[int, Field(ge=3)] = 10_000
    """Most images of a side. As many are taken of each, so no more than the validation split has."""
    neighbours: PositiveInt = 5
    """k of precision, recall, density and coverage."""
    batch: PositiveInt = 512
    """Images whose features are computed together; no part of the identity."""
    inception: Inception | None = None
    """Measure with Inception-v3 too; null does not."""
