"""Reading a split back into memory, every byte checked against its manifest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.exitcodes import BadInput
from adainf.shards.folder import ShardFolder
from adainf.shards.png import Pixels, decode_image


class Labelled(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB) and labels N (int64; -1 where there is none)."""

    images: Pixels
    labels: NDArray[np.int64]


def read_split(folder: ShardFolder, name: str) -> Labelled:
    """All images of a split, in order. Raises `BadInput` for a shard that is not what the manifest says."""
    split = folder.shards.splits[name]
    images = np.empty((split.images, *folder.shards.image_size, 3), np.uint8)
    labels = np.full(split.images, -1, np.int64)
    at = 0
    for shard in split.shards:
        index = folder.index(shard)
        tar = folder.read(shard.tar)
        for key, offset, size in zip(index.keys, index.image_offsets, index.image_sizes_bytes, strict=True):
            try:
                images[at] = decode_image(tar[offset : offset + size])
            except ValueError as error:
                raise BadInput(f"{folder.locate(shard.tar.key)}: sample {key}: {error}; make the shard again") from None
            at += 1
        labels[at - len(index.labels) : at] = index.labels
    return Labelled(images, labels)
