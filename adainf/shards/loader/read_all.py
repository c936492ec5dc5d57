"""A split as one array: the node's cache, filled whole and mapped into memory; and its captions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import FETCHES_AT_ONCE, Cache
from adainf.shards.loader.in_memory import WholeSplit
from adainf.shards.loader.prefetcher import Filler, Job


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
        return Labelled(split.all_images(), split.all_labels())  # maps outlive their file's name
    finally:
        filler.stop()
        if filler.ended():
            split.close()
            cache.close()


def read_texts(folder: ShardFolder, split: str) -> list[str]:
    """The caption of every image of a split, in order, from the shards' indexes alone. Raises `BadInput` where an image has
    none, and for an index that is not what the manifest says."""
    texts: list[str] = []
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        for index in pool.map(folder.index, folder.shards.splits[split].shards):
            for key, text in zip(index.keys, index.texts, strict=True):
                if not text:
                    raise BadInput(
                        f"{folder.locate(index.tar.key)}: sample {key} (image {len(texts)} of {split}) has no caption; put one "
                        f"beside every image, as {key}.txt in the tar, and ingest or index the tars anew"
                    )
                texts.append(text)
    return texts
