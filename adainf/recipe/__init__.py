"""The recipe: one YAML file is one experiment. The modules here define every setting with its unit and default.

``adainf recipe schema`` prints them as JSON Schema, ``adainf recipe show RECIPE`` prints a recipe with all defaults. A settings
class of `methods`, `real` and the generators is exported without a line here. This package imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.arm import REAL_ALONE, WITH_CANDIDATES, Arm
from adainf.recipe.augmentation import Augmentation
from adainf.recipe.diffusion import *  # noqa: F403
from adainf.recipe.evaluate import Evaluate, Finetune, Published
from adainf.recipe.external import *  # noqa: F403
from adainf.recipe.gan import *  # noqa: F403
from adainf.recipe.generator import *  # noqa: F403
from adainf.recipe.generator import Generate, GeneratedSource, Generator, ImportedImages, SourceName, SourceSettings
from adainf.recipe.methods import *  # noqa: F403
from adainf.recipe.positives import *  # noqa: F403
from adainf.recipe.positives import Positives, check_positives
from adainf.recipe.pretrain import Backbone, Monitor, Optimizer, Pretrain, Stream
from adainf.recipe.quality import Inception, Quality
from adainf.recipe.real import *  # noqa: F403
from adainf.recipe.real import ReadsFiles, Real
from adainf.recipe.sections import Section
from adainf.recipe.verify import Verify

__all__ = [
    "REAL_ALONE",
    "WITH_CANDIDATES",
    "Arm",
    "Augmentation",
    "Backbone",
    "Evaluate",
    "Finetune",
    "Inception",
    "Monitor",
    "Optimizer",
    "Plan",
    "Pretrain",
    "Published",
    "Quality",
    "Recipe",
    "Stream",
    "Verify",
]


class Plan(Section):
    """How the weights of images and the augmentation are chosen."""

    reference_images: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """The number of real images for which the recipe's own augmentation is right; null is the number in the run."""
    augmentation_rule: Literal["recipe", "crop_only"] = "recipe"
    """`recipe`: min crop scale up to 0.20 and weaker jitter, as in the paper's code; `crop_only`: min crop scale up to 0.30."""
    max_generated_share: Annotated[float, Field(ge=0.01, le=0.99)] = 0.8
    """Maximum fraction of generated images in a batch, for arm `adainf`."""
    verify: Verify | None = None
    """Short training runs that verify the plan, for arm `verified`; null runs none. Not part of the request of the plan."""


class Recipe(Section):
    """One experiment, from real images to evaluated encoders."""

    added_later = frozenset({"positives"})

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    """Lower-case letters, digits and hyphens; the default folder of the run is runs/NAME."""
    real: Real
    """The real images; `kind` names the type of source."""
    generator: Generator | None = None
    """The generator to fit (`kind: diffusion` or `gan`), one that was fitted elsewhere (`kind: external`), or existing images
    (`kind: import`)."""
    generators: Annotated[dict[SourceName, SourceSettings], Field(min_length=1)] | None = None
    """Several generators by name, in place of `generator`; each is fitted, measured and weighted separately."""
    generate: Generate = Generate()
    """How many images to generate, and how they are stored; the default of each of `generators`."""
    quality: Quality | None = Quality()
    """How the quality of generated images is measured against the validation split; null does not measure it."""
    plan: Plan = Plan()
    """How weights and augmentation of arm `adainf`, and of its ablations `reweighted` and `weak`, are chosen."""
    positives: Positives | None = None
    """Generated positives, for the arms that use them; null draws none."""
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("none", "none-weak", "vanilla", "adainf")
    """Which encoders to pretrain and evaluate."""
    pretrain: Pretrain = Pretrain()
    """How the encoders are pretrained."""
    evaluate: Evaluate = Evaluate()
    """How the encoders are evaluated."""
    published: Published | None = None
    """Published results, for the report; not part of any request."""
    cpu_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of the numerical libraries; null keeps their default. A fixed number makes CPU results independent of the number
    of cores."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if len(set(self.arms)) != len(self.arms):
            raise ValueError("arms contains an arm twice; list each arm once")
        if (self.generator is None) == (self.generators is None):
            raise ValueError(
                "generator is missing; add it, or name several in generators"
                if self.generator is None
                else "generator and generators are both set; remove one of them"
            )
        for source in self.sources.values():
            if source.generate.images is None and not isinstance(source.generator, ImportedImages):
                raise ValueError(f"{source.where('generate')}.images is missing; set how many images to generate")
        if self.measures_quality and not self.real.validation_fraction:
            raise ValueError(
                "quality is measured against the validation split, but real.validation_fraction is 0; raise it, or set "
                "quality: null"
            )
        if isinstance(self.real, ReadsFiles) and self.real.keep == "original":
            if self.positives is not None:
                raise ValueError("positives replace views of images of one size; set real.keep: resized, or remove positives")
            for setting in ("window_shards", "on_device"):
                if getattr(self.pretrain.stream, setting):
                    raise ValueError(
                        "real.keep is original, whose views are decoded from a cache of all files, and "
                        f"pretrain.stream.{setting} is set; remove one of them"
                    )
        if ("verified" in self.arms) != (self.plan.verify is not None):
            raise ValueError(
                "arms lists verified and plan.verify is null; set plan.verify: {} for its defaults"
                if self.plan.verify is None
                else "plan.verify is for arm verified, which is not in arms; add it there, or set plan.verify: null"
            )
        if self.plan.verify is not None and not self.real.validation_fraction:
            raise ValueError("plan.verify scores on the validation split, but real.validation_fraction is 0; raise it")
        check_positives(self)
        return self

    @property
    def uses_candidates(self) -> bool:
        """Whether an arm trains on candidates."""
        return any(arm in WITH_CANDIDATES for arm in self.arms)

    @property
    def candidate_source(self) -> GeneratedSource:
        """The source whose generator, or whose images, give the candidates."""
        assert self.positives is not None
        return self.sources[self.positives.source or ""]

    @property
    def sources(self) -> dict[str, GeneratedSource]:
        """The sources of generated images, sorted by name; the name of the only source of a recipe with `generator` is ""."""
        if self.generators is None:
            assert self.generator is not None
            return {"": GeneratedSource("", self.generator, self.generate)}
        return {
            name: GeneratedSource(name, one.generator, one.generate or self.generate)
            for name, one in sorted(self.generators.items())
        }

    @property
    def uses_generated(self) -> bool:
        """Whether an arm needs generated images."""
        return any(arm != "none" for arm in self.arms)

    @property
    def uses_plan(self) -> bool:
        """Whether an arm follows the plan."""
        return not {"none", "vanilla"}.issuperset(self.arms)

    @property
    def measures_quality(self) -> bool:
        """Whether there are generated images whose quality is measured."""
        return self.uses_generated and self.quality is not None
