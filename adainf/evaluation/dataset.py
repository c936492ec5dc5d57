"""Data sets for `transfer` and `embed`: a set of shards, or a user's images in their original format."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.decode import resized
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import read_split
from adainf.sources import BadData, SourceImages, kind_of, open_source
from adainf.sources.importing import in_words_of_the_command
from adainf.sources.tar_files import is_tar_uri
from adainf.storage import open_store


class KeyedImages(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB), labels N (-1: none) and the key of each image."""

    images: Pixels
    labels: NDArray[np.int64]
    keys: list[str]


class Dataset:
    """The splits at `uri`: a set of shards, an image folder, a folder of tars or a .npz.

    `image_size_px` resizes every image to that square. Raises `BadInput` if there are no images.
    """

    def __init__(self, uri: str, image_size_px: int | None = None) -> None:
        self.uri, self._size_px = uri, image_size_px
        self._folder: ShardFolder | None = None
        self._images: dict[str, SourceImages] = {}
        is_folder = uri.startswith("s3://") or Path(uri).expanduser().is_dir()
        if is_folder and not (uri.endswith(".npz") or is_tar_uri(uri)) and open_store(uri).head("manifest.json"):
            self._folder = ShardFolder.open(uri)
            self.sha256 = self._folder.digest
            self.splits = [name for name, split in self._folder.shards.splits.items() if split.images]
        else:
            with in_words_of_the_command("--data"):
                source = open_source(kind_of(uri))
            self.sha256 = source.fingerprint
            found = {"train": source.train, "validation": source.validation, "test": source.test}
            self._images = {split: images for split, images in found.items() if images is not None}
            self.splits = list(self._images)

    def read(self, split: str) -> KeyedImages:
        """All images of a split, in memory or memory-mapped. Raises `BadInput` for an unknown split or differing sizes."""
        if split not in self.splits:
            raise BadInput(f"{self.uri} has no images in split {split!r}; choose from: {', '.join(self.splits) or 'no split'}")
        if self._folder is None:
            return self._stacked(self._images[split])
        images, labels = read_split(self._folder, split)
        if self._size_px is not None:
            images = np.stack([resized(image, self._size_px) for image in images])
        keys = [key for shard in self._folder.split(split).shards for key in self._folder.index(shard).keys]
        return KeyedImages(images, labels, keys)

    def _stacked(self, source: SourceImages) -> KeyedImages:
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
                    f"{source.locate(index)} is {height} x {width} px, but others are {images[0].shape[0]} x "
                    f"{images[0].shape[1]} px; resize them with --image-size"
                )
        return KeyedImages(np.stack(images), np.array(labels, np.int64), [source.locate(index) for index in range(len(source))])
