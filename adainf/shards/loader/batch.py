"""A batch: a rank's slice of one global batch."""

from __future__ import annotations

from typing import NamedTuple

from adainf.shards.format.png import Pixels
from adainf.shards.loader.permutation import Integers


class Candidates(NamedTuple):
    """The companions of m images of a batch."""

    rows: Integers
    """m; their rows in the batch, ascending. The other rows have no companion."""
    images: Pixels
    """m x H x W x 3 uint8 RGB."""
    indices: Integers
    """m; the index of each candidate in its set."""


class Batch(NamedTuple):
    """This rank's slice of one global batch."""

    step: int
    images: Pixels | list[Pixels]
    """b x H x W x 3 uint8 RGB; a list of H x W x 3 where images differ in size."""
    sources: Integers
    """b; the source of each image, by its number in the order of `open_stream` and of the changes that add some."""
    indices: Integers
    """b; the index of each image in its source."""
    labels: Integers
    """b; -1 is none."""
    views: tuple[Pixels, ...] = ()
    """The random crops of `Stream.crop`, each b x h x w x 3; `images` is the first."""
    companions: Candidates | None = None
    """Of the images of one source; None for a stream without companions."""


def slice_of(global_batch: int, rank: int, world: int) -> slice:
    """The contiguous slice of the global batch of a rank; sizes differ by one image at most.

    A strided slice (every W-th image) would alias: with a share of 1/3 and 3 ranks, one rank would get all real images.
    """
    return slice(global_batch * rank // world, global_batch * (rank + 1) // world)
