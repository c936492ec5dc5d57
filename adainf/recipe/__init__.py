"""The recipe: one YAML file is one experiment. Every field, its unit and its default are here.

``adainf recipe schema`` prints this as JSON Schema, ``adainf recipe show RECIPE`` a recipe with all defaults filled in.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from adainf.recipe.arm import REAL_ALONE, Arm
from adainf.recipe.augmentation import Augmentation
from adainf.recipe.diffusion import Ddpm, Diffusion, Edm, FittedGenerator, Objective, Sampler, Stf, Unet
from adainf.recipe.evaluate import Evaluate, Finetune, Published
from adainf.recipe.external import External, ExternalSampler
from adainf.recipe.gan import Gan, GanSampler
from adainf.recipe.generator import Generate, GeneratedSource, Generator, ImportedImages, Provenance, SourceName
from adainf.recipe.methods import BarlowTwins, Byol, Clip, Dino, Method, MoCo, SimClr, SimSiam, Spectral, VicReg
from adainf.recipe.pretrain import Backbone, Monitor, Optimizer, Pretrain, Stream
from adainf.recipe.quality import Inception, Quality
from adainf.recipe.real import Cifar, Digits, FashionMnist, ImageFolder, Npz, Real, Shards
from adainf.recipe.sections import Section
from adainf.recipe.verify import Verify

__all__ = [
    "REAL_ALONE",
    "Arm",
    "Augmentation",
    "Backbone",
    "BarlowTwins",
    "Byol",
    "Cifar",
    "Clip",
    "Ddpm",
    "Diffusion",
    "Digits",
    "Dino",
    "Edm",
    "Evaluate",
    "External",
    "ExternalSampler",
    "FashionMnist",
    "Finetune",
    "FittedGenerator",
    "Gan",
    "GanSampler",
    "Generate",
    "GeneratedSource",
    "Generator",
    "ImageFolder",
    "ImportedImages",
    "Inception",
    "Method",
    "MoCo",
    "Monitor",
    "Npz",
    "Objective",
    "Optimizer",
    "Plan",
    "Pretrain",
    "Provenance",
    "Published",
    "Quality",
    "Real",
    "Recipe",
    "Sampler",
    "Shards",
    "SimClr",
    "SimSiam",
    "Source",
    "Spectral",
    "Stf",
    "Stream",
    "Unet",
    "Verify",
    "VicReg",
]


class Plan(Section):
    reference_images: Annotated[int, Field(ge=1, le=10**12)] = 50_000
    """The data size at which the base augmentation's min crop scale (0.08) is right; the paper's is CIFAR-10's 50,000."""
    augmentation_rule: Literal["recipe", "crop_only"] = "recipe"
    """`recipe`: crop up to 0.20 together with weaker jitter, as the paper ships; `crop_only`: crop up to 0.30."""
    max_generated_share: Annotated[float, Field(ge=0.01, le=0.99)] = 0.8
    """Most of a batch that may be generated, for the `adainf` arm."""
    verify: Verify | None = None
    """Probes that try out the plan, for arm `verified`; null makes none. No part of the plan's identity."""


class Source(NamedTuple):
    """Where generated images come from, and how many."""

    name: str
    """Empty for the one of a recipe with `generator`."""
    generator: Generator
    generate: Generate

    def where(self, section: str) -> str:
        """Its `generator` or `generate` as the recipe has it, for messages."""
        return f"generators.{self.name}.{section}" if self.name else section

    def label(self, stage: str) -> str:
        """What a stage calls its work on it, in lines and logs."""
        return f"{stage} {self.name}" if self.name else stage


class Recipe(Section):
    """One experiment, from real images to a judged encoder."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    """Lower-case letters, digits and hyphens; the run's default folder is runs/NAME."""
    real: Real
    """The real images: `kind` says where they come from."""
    generator: Generator | None = None
    """The generator to fit (`kind: diffusion` or `gan`), one that was fitted elsewhere (`kind: external`), or images that exist
    already (`kind: import`)."""
    generators: Annotated[dict[SourceName, GeneratedSource], Field(min_length=1)] | None = None
    """Several of them, by name, in place of `generator`; each is fitted, measured and weighed by itself."""
    generate: Generate = Generate()
    """How many images to generate, and how they are stored; of each of `generators` that has no `generate` of its own."""
    quality: Quality | None = Quality()
    """How generated images are measured, against the validation split; null does not measure them."""
    plan: Plan = Plan()
    """How weight and augmentation of arm `adainf`, and of its halves `reweighted` and `weak`, are chosen."""
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("none", "vanilla", "adainf")
    """Which encoders to pretrain and judge."""
    pretrain: Pretrain = Pretrain()
    """How the encoders are trained."""
    evaluate: Evaluate = Evaluate()
    """How the encoders are judged."""
    published: Published | None = None
    """Published numbers, for the report to show beside those of this run; no part of any artifact's identity."""
    cpu_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of the numerical libraries; null leaves them alone. Fixing it makes CPU results the same on any number of
    cores."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if len(set(self.arms)) != len(self.arms):
            raise ValueError("arms holds an arm twice; list each arm once")
        if (self.generator is None) == (self.generators is None):
            raise ValueError(
                "generator is missing; add it, or name several in generators"
                if self.generator is None
                else "generator and generators are both there; leave one of them out"
            )
        for source in self.sources.values():
            if source.generate.images is None and not isinstance(source.generator, ImportedImages):
                raise ValueError(f"{source.where('generate')}.images is missing; set how many images to generate")
        if self.measures_quality and not self.real.validation_fraction:
            raise ValueError(
                "quality is measured against the validation split, and real.validation_fraction is 0; raise that, or set "
                "quality: null to go without measuring"
            )
        if ("verified" in self.arms) != (self.plan.verify is not None):
            raise ValueError(
                "arms lists verified and plan.verify is null; set plan.verify: {} for its defaults"
                if self.plan.verify is None
                else "plan.verify is for arm verified, which arms does not list; add it there, or set plan.verify: null"
            )
        if self.plan.verify is not None and not self.real.validation_fraction:
            raise ValueError("plan.verify judges on the validation split, and real.validation_fraction is 0; raise that")
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """Where generated images come from, by name and in the order of names; the one of `generator` has none: ""."""
        if self.generators is None:
            assert self.generator is not None
            return {"": Source("", self.generator, self.generate)}
        return {
            name: Source(name, one.generator, one.generate or self.generate) for name, one in sorted(self.generators.items())
        }

    @property
    def uses_generated(self) -> bool:
        """Whether any arm needs generated images."""
        return any(arm != "none" for arm in self.arms)

    @property
    def uses_plan(self) -> bool:
        """Whether any arm goes by the plan."""
        return not {"none", "vanilla"}.issuperset(self.arms)

    @property
    def measures_quality(self) -> bool:
        """Whether there are generated images, and they are to be measured."""
        return self.uses_generated and self.quality is not None
