"""The generator, images that take its place, or several sources of either kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.diffusion import Diffusion
from adainf.recipe.external import External
from adainf.recipe.gan import Gan
from adainf.recipe.sections import PositiveInt, Section, Seed


class Provenance(Section):
    """What the user declares about images that the run did not generate itself; copied into manifest and report."""

    generator: str
    """Name of the generative model, for example "STF (Xu et al. 2023), NCSN++"."""
    trained_on: str
    """The images it was fitted on, for example "CIFAR-10 train, the 50,000 images of this recipe"."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering; the method's claim needs false."""
    source: str = ""
    """Where the images came from: address, date, licence."""


class ImportedImages(Section):
    """Images that exist already take the place of `fit` and `generate`."""

    kind: Literal["import"]
    format: Literal["npz", "shards", "folder"]
    """What lies at `path`."""
    path: str
    """The .npz (`image` uint8 N x H x W x 3), the folder of tar shards, or the image folder. Not part of the identity."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order in which the file holds the channels; an order that contradicts the real images' means is refused."""
    provenance: Provenance
    """Where the images came from, as the user declares it."""


Generator = Annotated[Diffusion | Gan | External | ImportedImages, Field(discriminator="kind")]


class Generate(Section):
    images: PositiveInt | None = None
    """How many images to generate; null takes all of an import, and is refused for a generator.

    Raised later, `generate` extends the set and leaves what is there as it is; the number before must have been a multiple
    of `shard_images`."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard; also the most that a stop can lose."""
    compression: Literal["stored", "deflate"] = "stored"
    """Of the PNGs: stored ones are a quarter larger, many times as fast to write and to read, and the same bytes everywhere."""
    seed: Seed = 0
    """Image i is a function of the generator, this seed and i alone."""


class GeneratedSource(Section):
    """One of several sources of generated images."""

    generator: Generator
    """As the recipe's `generator`."""
    generate: Generate | None = None
    """As the recipe's `generate`, in its place; null takes that."""


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
