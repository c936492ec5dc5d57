"""How the quality of generated images is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adainf.recipe.sections import PositiveInt, Section


class Inception(Section):
    """Weights of Inception-v3, for numbers that are comparable with papers; AdaInf does not include them."""

    weights: str
    """torch-fidelity's weights-inception-2015-12-05-6726825d.pth. Not part of the request."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of that file; a file with another digest is rejected before it is read."""


class Quality(Section):
    """Generated images against the validation split; each metric beside its value for as many real training images."""

    images: Annotated[int, Field(ge=3)] = 10_000
    """Maximum images per side. Both sides have the same number, at most that of the validation split."""
    neighbours: PositiveInt = 5
    """k of precision, recall, density and coverage."""
    batch: PositiveInt = 512
    """Images per batch of feature extraction; not part of the request."""
    inception: Inception | None = None
    """Measure with Inception-v3 too; null does not."""
