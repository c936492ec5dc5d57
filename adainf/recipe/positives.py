"""Generated positives: candidates for each real training image, and how pretraining uses them (docs/positives.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from adainf.recipe.arm import WITH_CANDIDATES
from adainf.recipe.diffusion import Diffusion
from adainf.recipe.sections import Positive, Probability, Section, Seed

if TYPE_CHECKING:
    from adainf.recipe import Recipe

__all__ = ["Add", "NearestGenerated", "Positives", "Renoise", "Replace"]


class Renoise(Section):
    """SDEdit (Meng et al. 2022): add noise to the image, then denoise it with the run's diffusion model."""

    kind: Literal["renoise"]
    sigma: Positive = 0.5
    """Standard deviation of the noise, in units of images in -1..1. A larger one changes more of the image."""


class NearestGenerated(Section):
    """The generated images that are nearest to the image in the features of the first encoder of arm `none`."""

    kind: Literal["neighbour"]


class Replace(Section):
    """A view of the candidate in place of one view of the image: no further computation."""

    kind: Literal["replace"]
    probability: Annotated[Probability, Field(gt=0)] = 0.5
    """Of an image in a pass to have one view replaced."""


class Add(Section):
    """A third view, of the candidate, and an alignment term (CLSP, Zeng et al. 2024): half as many views more."""

    kind: Literal["add"]
    weight: Positive = 1.0
    """Lambda: weight of mean(2 - 2 cos(z1, z3)). CLSP uses 1 with SimCLR and 0.5 with MoCo."""
    align: Literal["first", "both"] = "first"
    """The projections that are compared with the candidate's: z1, as CLSP does, or z1 and z2 (the mean of both terms)."""


Draw = Annotated[Renoise | NearestGenerated, Field(discriminator="kind")]
Use = Annotated[Replace | Add, Field(discriminator="kind")]


class Positives(Section):
    """Candidates for each real training image, and their use."""

    draw: Draw = Renoise(kind="renoise")
    """How a candidate is made."""
    use: Use = Replace(kind="replace")
    """How a candidate enters pretraining; not part of the request of the candidates."""
    source: str | None = None
    """The one of `generators` that draws candidates; null with a single `generator`."""
    candidates: Annotated[int, Field(ge=1, le=256)] = 4
    """Candidates per image. Where it is raised later, `positives` extends the set and keeps its shards."""
    compression: Literal["stored", "deflate"] = "stored"
    """As `generate.compression`."""
    seed: Seed = 0
    """Candidate c of image i is a function of the generator, this seed, i and c."""


def check_positives(recipe: Recipe) -> None:
    """Raise `ValueError` where section, arms, method and generators of the recipe do not fit together."""
    positives, wanting = recipe.positives, [arm for arm in recipe.arms if arm in (*WITH_CANDIDATES, "third-view")]
    if positives is None:
        if wanting:
            raise ValueError(f"arms lists {wanting[0]} and positives is null; set positives: {{}} for its defaults")
        return
    if not wanting:
        raise ValueError("positives is for arms positives, adainf-positives and their controls; add one to arms, or remove it")
    method, generators = recipe.pretrain.method, recipe.generators
    if isinstance(positives.use, Add):
        if not method.aligns_third_view:
            raise ValueError(
                f"positives.use.kind is add, which method {method.kind} does not support; set it to replace, or use simclr, "
                "moco, barlow, vicreg or spectral"
            )
    elif "third-view" in recipe.arms:
        raise ValueError("arms lists third-view, the control of positives.use.kind add; set that, or remove the arm")
    sources: tuple[str | None, ...] = tuple(generators) if generators else (None,)
    if positives.source not in sources:
        known = f"set it to one of {', '.join(generators)}" if generators else "remove it, there is one generator"
        raise ValueError(f"positives.source is {positives.source or 'null'}; {known}")
    if generators and "positives" in generators:
        raise ValueError("generators contains the name positives, which the candidates have; rename that generator")
    if recipe.uses_candidates:
        _check_draw(recipe, positives)


def _check_draw(recipe: Recipe, positives: Positives) -> None:
    generator = recipe.candidate_source.generator
    if getattr(recipe.real, "keep", "resized") == "original":
        raise ValueError("positives need images of one size, and real.keep is original; set real.keep to resized")
    if not isinstance(positives.draw, Renoise):
        if "none" not in recipe.arms:
            raise ValueError("positives.draw.kind is neighbour, which uses the encoder of arm none; add none to arms")
    elif not isinstance(generator, Diffusion):
        raise ValueError(
            f"positives.draw.kind is renoise, which needs a generator of kind diffusion, not {generator.kind}; set it to "
            "neighbour, or fit a diffusion model"
        )
    elif not generator.sampler.sigma_min < positives.draw.sigma <= generator.sampler.sigma_max:
        raise ValueError(
            f"positives.draw.sigma is {positives.draw.sigma:g}, outside of the sampler's levels "
            f"({generator.sampler.sigma_min:g} to {generator.sampler.sigma_max:g}); set it between them"
        )
