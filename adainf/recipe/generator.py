"""Generators of every kind, imported images, and how many images to generate."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from adainf.recipe.diffusion import Diffusion
from adainf.recipe.external import External
from adainf.recipe.gan import Gan
from adainf.recipe.sections import PositiveInt, Section, Seed


class Provenance(Section):
    """What the user declares about images that the run did not generate; copied into manifest and report."""

    generator: str
    """Name of the generative model, for example "STF (Xu et al. 2023), NCSN++"."""
    trained_on: str
    """The images it was fitted on, for example "CIFAR-10 train, the 50,000 images of this recipe"."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering; the method's claim requires false."""
    source: str = ""
    """Origin of the images: address, date, licence."""


class ImportedImages(Section):
    """Existing images, used in place of `fit` and `generate`."""

    kind: Literal["import"]
    format: Literal["npz", "shards", "folder"]
    """Format of the data at `path`."""
    path: str
    """The .npz (`image` uint8 N x H x W x 3), the folder of tar shards, or the image folder. Not part of the request."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Channel order of the file; an order that contradicts the channel means of the real images is rejected."""
    provenance: Provenance
    """Origin of the images, as declared by the user."""


FittedKind = Diffusion | Gan
"""The kinds that `fit` fits. docs/extending.md adds one."""

Generator = Annotated[FittedKind | External | ImportedImages, Field(discriminator="kind")]


class Generate(Section):
    """How many images to generate, and how they are stored."""

    images: PositiveInt | None = None
    """Number of images; null takes all images of an import, and is rejected for a generator.

    Where it is raised later, `generate` extends the set and keeps its shards; the previous number must be a multiple of
    `shard_images`."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard; also the most that a stop can lose."""
    compression: Literal["stored", "deflate"] = "stored"
    """Of the PNGs. Stored PNGs are a quarter larger, many times faster to write and read, and identical on every machine."""
    seed: Seed = 0
    """Image i is a function of the generator, this seed and i."""


class SourceSettings(Section):
    """One of several sources of generated images."""

    generator: Generator
    """As the recipe's `generator`."""
    generate: Generate | None = None
    """Replaces the recipe's `generate` for this source; null uses that."""


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]


class GeneratedSource(NamedTuple):
    """One source of generated images with its settings resolved (`Recipe.sources`)."""

    name: str
    """Empty for the only source of a recipe with `generator`."""
    generator: Generator
    generate: Generate

    def where(self, section: str) -> str:
        """Path of its `generator` or `generate` in the recipe, for messages."""
        return f"generators.{self.name}.{section}" if self.name else section

    def label(self, stage: str) -> str:
        """Name of a stage's work on this source, for messages and logs."""
        return f"{stage} {self.name}" if self.name else stage
