"""Read a complete split: its images as one array mapped from the node cache, or its captions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.in_memory import InMemorySplit
from adainf.shards.loader.prefetcher import FetchTask, Prefetcher


class Labelled(NamedTuple):
    """Images N x H x W x 3 (uint8, RGB) and labels N (int64; -1 where there is none), both read-only."""

    images: Pixels
    labels: NDArray[np.int64]


def read_split(folder: ShardFolder, name: str) -> Labelled:
    """All images of a split, in order; empty arrays for an empty split. Raises `BadInput` for a shard that does not match the
    manifest."""
    if not folder.shards.splits[name].images:
        return Labelled(np.empty((0, *folder.shards.image_size, 3), np.uint8), np.empty(0, np.int64))
    cache = Cache()
    split = InMemorySplit(folder, name, cache, "fail")
    prefetcher = Prefetcher([split], cache.fetches)
    try:
        prefetcher.wait([FetchTask(0, number) for number in range(len(split.split))])
        return Labelled(split.all_images(), split.all_labels())  # a map outlives the name of its file
    finally:
        prefetcher.stop()
        if prefetcher.join():
            split.close()
            cache.close()


def read_texts(folder: ShardFolder, split: str) -> list[str]:
    """The caption of every image of a split, in order; reads only the shards' indexes. Raises `BadInput` for an image without
    a caption, and for an index that does not match the manifest."""
    texts: list[str] = []
    with ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        for index in pool.map(folder.index, folder.shards.splits[split].shards):
            for key, text in zip(index.keys, index.texts, strict=True):
                if not text:
                    raise BadInput(
                        f"{folder.locate(index.tar.key)}: sample {key} (image {len(texts)} of {split}) has no caption; add "
                        f"{key}.txt (and one for every other image) to the tar, then ingest or index the tars again"
                    )
                texts.append(text)
    return texts
