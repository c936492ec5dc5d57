"""The interface of all sources: images by index, created or decoded on access."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.recipe import ReadsFiles
from adainf.shards.format.fields import MAX_CLASSES
from adainf.shards.format.formats import Header, Reading
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.summary import Findings
from adainf.shards.format.tar import Original, Sample
from adainf.shards.format.writer import Images


class BadData(BadInput):
    """The user's data cannot be read: the data are at fault, not the run or its store."""


class CorruptImage(BadData):
    """An image cannot be decoded; `also` is the number of other such images of its source."""

    def __init__(self, where: str, reason: str, also: int = 0) -> None:
        self.where, self.reason = where, reason
        others = f" and the {also:,} listed above" if also else ""
        super().__init__(f"{where}: {reason}; replace or remove this file{others}")


class Described(NamedTuple):
    """What is known of an image without decoding it."""

    label: int | None
    captioned: bool
    header: Header | None
    """None where it cannot be read; decoding the image reports why."""


class SourceImages(Images, Protocol):
    """Images with the location of each in the user's data."""

    def describe(self, index: int) -> Described:
        """What is known of image `index` without decoding it, for the data summary."""
        ...

    def locate(self, index: int) -> str:
        """The location of image `index`, for messages."""
        ...


@dataclass(frozen=True)
class ImageSource:
    """One opened source. Images are H x W x 3 uint8 RGB; their sizes may still differ from each other."""

    train: SourceImages
    test: SourceImages | None
    """None where the source has no test split of its own."""
    classes: list[str]
    """Names of the labels 0, 1, …; empty without labels."""
    fingerprint: str
    """SHA-256 of the data: a resumed ingest detects other data under the same path."""
    findings: Findings = field(default_factory=Findings)
    """What the source has understood and left out, besides the counts of its splits; see `adainf.shards.format.summary`."""
    validation: SourceImages | None = None
    """None where the source has no validation split of its own: it is then taken from train."""


def reading_of(settings: ReadsFiles) -> Reading:
    """How a recipe's image files become pixels."""
    return Reading(settings.exif_transpose, settings.sixteen_bit, None, settings.least_px, settings.keep == "original")


def decoded_sample(data: bytes, label: int | None, text: str | None, reading: Reading) -> Sample:
    """An image file as a sample. Raises `ValueError` as `decode_image` does."""
    sample = Sample(decode_image(data, reading=reading), label, text)
    return Original.of(sample, data) if reading.keep_encoded else sample


@dataclass(frozen=True)
class ArrayImages:
    """Images in one array, in memory or in a mapped file."""

    images: Pixels
    """N x H x W x 3, RGB, or N x H x W for grey."""
    labels: NDArray[np.int64] | None
    """N; -1 is none."""
    origin: str
    """The file, for messages."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = np.asarray(self.images[index])
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        label = -1 if self.labels is None else int(self.labels[index])
        return Sample(image, None if label < 0 else label)

    def locate(self, index: int) -> str:
        return f"{self.origin}: image {index}"

    def describe(self, index: int) -> Described:
        height, width = self.images.shape[1:3]
        label = -1 if self.labels is None else int(self.labels[index])
        mode = "L" if self.images.ndim == 3 else "RGB"
        return Described(None if label < 0 else label, False, Header(mode, height, width, 1))


def fingerprint_of(*arrays: NDArray[Any]) -> str:
    """SHA-256 over the arrays, each with its shape and type, so that different lists of arrays have different digests."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def numbered_classes(labels: list[int] | NDArray[np.integer[Any]], origin: str) -> list[str]:
    """Names "0", "1", … for labels without names; -1 is none. Raises `BadData` for a label that is not a class number."""
    if not len(labels):
        return []
    # Python's min and max for a list: a .cls may hold an integer of any size
    least, most = (min(labels), max(labels)) if isinstance(labels, list) else (int(labels.min()), int(labels.max()))
    if least < -1 or most >= MAX_CLASSES:
        label = least if least < -1 else most
        raise BadData(f"{origin}: label {label} is not a class number; use 0, 1, … (below {MAX_CLASSES}), or -1 for none")
    return [str(label) for label in range(most + 1)]
