"""How the images of a set are decoded. Not in `manifest`, which needs no decoder."""

from __future__ import annotations

from typing import NamedTuple

from adainf.shards.format.formats import AS_STORED, Reading
from adainf.shards.format.manifest import ShardSet


class Decoding(NamedTuple):
    """How the images of a set are decoded."""

    reading: Reading
    resize_px: int | None
    """Crop and resize to this square; None leaves images as they are."""


def decoding(shards: ShardSet, size_px: int | None) -> Decoding:
    """How an image is decoded for a reader that wants squares of `size_px`, or for None the size of the set."""
    originals = shards.originals
    if originals is None:
        return Decoding(AS_STORED, size_px)
    size_px = originals.size_px if size_px is None else size_px
    square_px = size_px if originals.decode == "scaled" else None
    return Decoding(Reading(originals.exif_transpose, originals.sixteen_bit, None, square_px), size_px)
