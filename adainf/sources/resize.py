"""Images of one size out of images as they come: crop, resize, channel order, and the check that the size is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adainf.shards.format.decode import resized
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, SourceImages


@dataclass(frozen=True)
class Chosen:
    """Some images of a source, all of one size: what a split is written from."""

    images: SourceImages
    indices: NDArray[np.int64]
    """Which of them, in the order of the split."""
    height_px: int
    width_px: int
    image_size_px: int | None
    """Crop and resize to this square; None takes the images as they are."""
    bgr: bool = False
    """The source holds its channels as B, G, R."""
    labelled: bool = True
    """Pass labels on; captions always are."""
    resizing: str = "set real.image_size_px"
    """How a user brings images to one size."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        """Raises `BadData` naming the image whose size is another."""
        index = int(self.indices[position])
        image, label, text = self.images[index]
        if self.image_size_px is not None:
            image = resized(image, self.image_size_px)
        if image.shape != (self.height_px, self.width_px, 3):
            height, width, _ = image.shape
            raise BadData(
                f"{self.images.locate(index)} is {height} x {width} px where {self.height_px} x {self.width_px} px are "
                f"expected, as all images must have one size; {self.resizing}"
            )
        return Sample(image[:, :, ::-1] if self.bgr else image, label if self.labelled else None, text)

    def take(self, positions: range) -> list[Sample]:
        """The samples of a range of positions: what `write_split` asks for."""
        return [self[position] for position in positions]
