"""Images to put an encoder to use on: a set of shards, or what users bring as it lies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.decode import resized
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import read_split
from adainf.sources import BadData, SourceImages, kind_of, open_source
from adainf.storage import open_store


class Keyed(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB), labels N (-1 is none) and the name of each image."""

    images: Pixels
    labels: NDArray[np.int64]
    keys: list[str]


class Dataset:
    """The splits that lie at `uri`: a set of shards; or an image folder, a folder of tars or a .npz.

    `image_size_px` brings every image to that square. Raises `BadInput` where no images lie there.
    """

    def __init__(self, uri: str, image_size_px: int | None = None) -> None:
        self.uri, self._size_px = uri, image_size_px
        self._folder: ShardFolder | None = None
        self._images: dict[str, SourceImages] = {}
        if uri.startswith("s3://") or (not uri.endswith(".npz") and open_store(uri).head("manifest.json")):
            self._folder = ShardFolder.open(uri)
            self.sha256 = self._folder.digest
            self.splits = [name for name, split in self._folder.shards.splits.items() if split.images]
        else:
            source = open_source(kind_of(uri))
            self.sha256 = source.fingerprint
            self._images = {"train": source.train} | ({} if source.test is None else {"test": source.test})
            self.splits = list(self._images)

    def read(self, split: str) -> Keyed:
        """All images of a split, in memory or mapped. Raises `BadInput` where there is none, or sizes differ."""
        if split not in self.splits:
            raise BadInput(f"{self.uri} has no images in split {split!r}; it has {', '.join(self.splits) or 'none at all'}")
        if self._folder is None:
            return self._stacked(self._images[split])
        images, labels = read_split(self._folder, split)
        if self._size_px is not None:
            images = np.stack([resized(image, self._size_px) for image in images])
        keys = [key for shard in self._folder.split(split).shards for key in self._folder.index(shard).keys]
        return Keyed(images, labels, keys)

    def _stacked(self, source: SourceImages) -> Keyed:
        images: list[Pixels] = []
        labels: list[int] = []
        for index in range(len(source)):
            sample = source[index]
            image, label = sample.image, sample.label
            images.append(image if self._size_px is None else resized(image, self._size_px))
            labels.append(-1 if label is None else label)
            if images[0].shape != images[-1].shape:
                height, width, _ = image.shape
                raise BadData(
                    f"{source.locate(index)} is {height} x {width} px and others are {images[0].shape[0]} x "
                    f"{images[0].shape[1]} px; bring them to one size with --image-size"
                )
        return Keyed(np.stack(images), np.array(labels, np.int64), [source.locate(index) for index in range(len(source))])
