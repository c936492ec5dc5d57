"""Reading a split back into memory, every byte checked against its manifest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.artifacts import Run
from adainf.exitcodes import BadInput
from adainf.shards.manifest import ShardIndex, ShardSet, Split
from adainf.shards.png import Pixels, decode_image


class Labelled(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB) and labels N (int64; -1 where there is none)."""

    images: Pixels
    labels: NDArray[np.int64]


def read_split(run: Run, shards: ShardSet, split: str) -> Labelled:
    """All images of a split, in order. Raises `BadInput` for a shard that is not what the manifest says."""
    described: Split = shards.splits[split]
    images = np.empty((described.images, shards.height_px, shards.width_px, 3), np.uint8)
    labels = np.full(described.images, -1, np.int64)
    at = 0
    for shard in described.shards:
        index = run.parse(ShardIndex, shard.index.key, run.read(shard.index))
        tar = memoryview(run.read(shard.tar))
        for sample in index.samples:
            encoded = bytes(tar[sample.image_offset : sample.image_offset + sample.image_size_bytes])
            try:
                images[at] = decode_image(encoded)
            except ValueError as error:
                raise BadInput(f"{run.locate(shard.tar.key)}: sample {sample.key}: {error}; make the shard again") from None
            if sample.label is not None:
                labels[at] = sample.label
            at += 1
    return Labelled(images, labels)
