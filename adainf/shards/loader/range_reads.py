"""Single images by range reads, for a first batch that need not wait until every shard of the set has been fetched.

Shuffled over a hundred shards, a batch needs an image or two of each: some hundred small reads where the shards are gigabytes.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from adainf.errors import AdaInfError
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.loader.arrays import Integers, distinct, owners
from adainf.shards.loader.in_memory import WholeSplit
from adainf.storage import NotFound

READS_AT_ONCE = 8


class ColdReader:
    """Images of a split whose shards are not filled yet."""

    def __init__(self, split: WholeSplit) -> None:
        self.split = split
        self._index = lru_cache(None)(self._read_index)

    def take(self, indices: Integers, out: Pixels) -> Integers | None:
        """Read the images into `out`; their labels. None where any of them is not whole: filling its shard will judge it."""
        split = self.split
        shards = owners(split.starts, indices)
        places = indices - split.starts[shards]
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            try:
                list(pool.map(self._index, distinct(shards).tolist()))
                found = list(pool.map(self._read, shards.tolist(), places.tolist()))
            except (AdaInfError, NotFound, ValueError):
                return None
        for row, (image, _) in enumerate(found):
            out[row] = image
        return np.array([label for _, label in found])

    def _read_index(self, shard: int) -> ShardIndex:
        return self.split.folder.index(self.split.split.shard(shard))

    def _read(self, shard: int, place: int) -> tuple[Pixels, int]:
        index, folder = self._index(shard), self.split.folder
        offset, size = index.image_offsets[place], index.image_sizes_bytes[place]
        data = folder.run.store.get_range(folder.key(index.tar.key), offset, size)
        if zlib.crc32(data) != index.image_crc32s[place]:
            raise ValueError("other bytes than the index says")
        return self.split.fit(decode_image(data, verified=True)), index.labels[place]
