"""A split as one array: the node's cache, filled whole and mapped into memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.shards.cache import Cache
from adainf.shards.filler import Filler, Job
from adainf.shards.folder import ShardFolder
from adainf.shards.png import Pixels
from adainf.shards.whole import WholeSplit


class Labelled(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB) and labels N (int64; -1 where there is none), both for reading only."""

    images: Pixels
    labels: NDArray[np.int64]


def read_split(folder: ShardFolder, name: str) -> Labelled:
    """All images of a split, in order; empty where it has none. Raises `BadInput` for a shard that is not what the manifest
    says."""
    if not folder.shards.splits[name].images:
        return Labelled(np.empty((0, *folder.shards.image_size, 3), np.uint8), np.empty(0, np.int64))
    cache = Cache()
    split = WholeSplit(folder, name, cache, "fail")
    filler = Filler([split], cache.fetches)
    try:
        filler.wait([Job(0, number) for number in range(len(split.split))])
        return Labelled(split.all_images(), split.labels)  # maps outlive their file's name
    finally:
        filler.stop()
        if filler.ended():
            split.close()
            cache.close()
