"""What the inflation plan is made from, and what it says: the content of ``plan.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.augment.profiles import Profile
from adainf.inflation.quality_score import Measured
from adainf.pipeline.artifacts import Record

Basis = Literal["paper's point", "interpolation", "our prior"]
PRIOR: Basis = "our prior"
QUALITY, WEIGHT, SHARE = "quality", "weight", "share"
"""Choices for a source; see `of_source`."""
REAL_WEIGHT, GENERATED_SHARE = "real weight", "generated share"
EFFECTIVE, MIN_SCALE, JITTER = "effective images", "min crop scale", "jitter multiplier"

PAPER_REFERENCE_IMAGES = 50_000
ONLY = "generated"
"""The source of a recipe that has one generator."""


class Source(Record):
    """What the plan is told of one source of generated images."""

    images: Annotated[int, Field(ge=1)]
    measured: Measured | None = None
    """None: the images' quality is unknown, and taken for the paper's best."""


class Inputs(Record):
    """What the plan is made from."""

    real_images: Annotated[int, Field(ge=1)]
    """Real training images."""
    sources: Annotated[dict[str, Source], Field(min_length=1)]
    """Generated images, by the name of their artifact."""
    reference_images: Annotated[int, Field(ge=1)] = PAPER_REFERENCE_IMAGES

    @property
    def generated_images(self) -> int:
        """Of all sources together."""
        return sum(source.images for source in self.sources.values())


class Choice(Record):
    """One number of the plan, how it came about and how far it can be trusted."""

    name: str
    value: float
    formula: str
    basis: Basis


class Weighed(Record):
    """What the plan makes of one source."""

    quality: float
    """q, 0..1."""
    is_measured: bool
    """False: that is assumed."""
    weight: float
    """Of one of its images: q / best q, less the share of copies among them; 0 where they are refused."""
    share: float
    """Probability that an item of a batch is of this source."""
    refused: str | None = None
    """Why its images are left out."""


class InflationPlan(Record):
    """The plan of the `adainf` arm: what a person reads, and what `pretrain` obeys."""

    inputs: Inputs
    real_weight: float
    """Weight of one real image."""
    sources: dict[str, Weighed]
    """By the names of the inputs' sources."""
    generated_share: float
    """Probability that an item of a batch is generated."""
    views: tuple[Profile, Profile]
    """The augmentation of the two views."""
    choices: list[Choice]
    warnings: list[str]

    def choice(self, name: str) -> Choice:
        """The choice of that name: `REAL_WEIGHT`, `EFFECTIVE`, …"""
        return next(choice for choice in self.choices if choice.name == name)

    @property
    def weights(self) -> dict[str, float]:
        """Of one image of each source that is not refused."""
        return {name: one.weight for name, one in self.sources.items() if one.weight}

    @property
    def refused(self) -> str | None:
        """Why the generated images are left out, all of them; None where some are not."""
        if self.weights:
            return None
        of = {name: f"{name}: " if len(self.sources) > 1 else "" for name in self.sources}
        return "; ".join(f"{of[name]}{one.refused}" for name, one in self.sources.items())


def of_source(choice: str, source: str, sources: int) -> str:
    """The name of a choice for one of so many sources: the only one goes without saying."""
    return choice if sources == 1 else f"{choice} of {source}"
