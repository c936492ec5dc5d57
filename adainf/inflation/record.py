"""Inputs and content of the inflation plan: the record of ``plan.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.augment.profiles import Profile
from adainf.inflation.quality_score import Measured
from adainf.pipeline.records import Record

Basis = Literal["paper's point", "interpolation", "our prior"]
PRIOR: Basis = "our prior"
QUALITY, WEIGHT, SHARE = "quality", "weight", "share"
"""Names of a source's choices; see `choice_name`."""
REAL_WEIGHT, GENERATED_SHARE = "real weight", "generated share"
EFFECTIVE, MIN_SCALE, JITTER = "effective images", "min crop scale", "jitter multiplier"

PAPER_REFERENCE_IMAGES = 50_000
PAPER_METHOD = "simclr"
"""The only method with which the paper swept weight and crop."""
SINGLE_SOURCE = "generated"
"""Name of the source in a recipe with one generator."""


class SourceStats(Record):
    """Size and measured quality of one source of generated images."""

    images: Annotated[int, Field(ge=1)]
    measured: Measured | None = None
    """None: quality unknown, assumed to be the paper's best."""


class Inputs(Record):
    """Inputs of the plan."""

    real_images: Annotated[int, Field(ge=1)]
    """Real training images."""
    sources: Annotated[dict[str, SourceStats], Field(min_length=1)]
    """Generated images, by the name of their artifact."""
    reference_images: Annotated[int, Field(ge=1)]
    """The number of real images for which the default augmentation is right."""
    method: str = PAPER_METHOD
    """The contrastive method."""

    @property
    def generated_images(self) -> int:
        """Total of all sources."""
        return sum(source.images for source in self.sources.values())


class Choice(Record):
    """One value of the plan, its formula and its basis."""

    name: str
    value: float
    formula: str
    basis: Basis


class SourceWeight(Record):
    """Quality score and weight of one source."""

    quality: float
    """q, 0..1."""
    is_measured: bool
    """False: q is assumed."""
    weight: float
    """Per image: q / best q, less the share of copies; 0 if refused."""
    share: float
    """Probability that an item of a batch is from this source."""
    refused: str | None = None
    """Why its images are not used."""


class InflationPlan(Record):
    """The plan of arm `adainf`, as shown to users and applied by `pretrain`."""

    inputs: Inputs
    real_weight: float
    """Weight of one real image."""
    sources: dict[str, SourceWeight]
    """By source name, as in `inputs`."""
    generated_share: float
    """Probability that an item of a batch is generated."""
    views: tuple[Profile, Profile]
    """The augmentation of the two views."""
    choices: list[Choice]
    warnings: list[str]

    def choice(self, name: str) -> Choice:
        """The choice with that name: `REAL_WEIGHT`, `EFFECTIVE`, …"""
        return next(choice for choice in self.choices if choice.name == name)

    @property
    def weights(self) -> dict[str, float]:
        """Weight per image of each source that is not refused."""
        return {name: one.weight for name, one in self.sources.items() if one.weight}

    @property
    def refused(self) -> str | None:
        """Why no generated images are used; None if some are."""
        if self.weights:
            return None
        of = {name: f"{name}: " if len(self.sources) > 1 else "" for name in self.sources}
        return "; ".join(f"{of[name]}{one.refused}" for name, one in self.sources.items())


def choice_name(choice: str, source: str, sources: int) -> str:
    """Name of a source's choice; a single source is not named."""
    return choice if sources == 1 else f"{choice} of {source}"
