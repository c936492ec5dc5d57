"""Select images of a source and bring them to one size: crop, resize, channel order, and the check of the size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adainf.shards.format.decode import resized
from adainf.shards.format.tar import Original, Sample
from adainf.sources.base import BadData, Described, SourceImages


@dataclass(frozen=True)
class Selection:
    """A selection of a source's images, all of one size, from which a split is written."""

    images: SourceImages
    indices: NDArray[np.int64]
    """Indices into `images`, in the order of the split."""
    height_px: int
    width_px: int
    image_size_px: int | None
    """Crop and resize to this square; None leaves the images as they are."""
    bgr: bool = False
    """The source stores its channels as B, G, R."""
    labelled: bool = True
    """Whether to keep labels; captions are always kept."""
    resizing: str = "set real.image_size_px"
    """The fix that an error message suggests for images of several sizes."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        """Raises `BadData`, with the location of the image, where its size differs."""
        index = int(self.indices[position])
        found = self.images[index]
        image, label, text = found
        if self.image_size_px is not None:
            image = resized(image, self.image_size_px)
        if image.shape != (self.height_px, self.width_px, 3):
            height, width, _ = image.shape
            raise BadData(
                f"{self.images.locate(index)} is {height} x {width} px, expected {self.height_px} x {self.width_px} px: all "
                f"images must have one size; {self.resizing}"
            )
        sample = Sample(image[:, :, ::-1] if self.bgr else image, label if self.labelled else None, text)
        return Original.of(sample, found.encoded) if isinstance(found, Original) else sample

    def describe(self, position: int) -> Described:
        """What is known of the image without decoding it, before resizing."""
        found = self.images.describe(int(self.indices[position]))
        return found if self.labelled else found._replace(label=None)

    def take(self, positions: range) -> list[Sample]:
        """The samples of a range of positions, as `write_split` needs them."""
        return [self[position] for position in positions]
