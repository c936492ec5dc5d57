"""Range reads at start-up: fetch the single images of the first batches, without waiting for complete shards.

A batch shuffled over a hundred shards needs an image or two of each: some hundred small reads instead of gigabytes.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from adainf.errors import AdaInfError
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.loader.in_memory import InMemorySplit
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.storage import NotFound

MAX_CONCURRENT_READS = 8


class RangeReader:
    """Reads single images of a split whose shards are not cached yet."""

    def __init__(self, split: InMemorySplit) -> None:
        self.split = split
        self._index = lru_cache(None)(self._read_index)

    def take(self, indices: Integers, out: Pixels) -> Integers | None:
        """Read the images into `out`; their labels. None where any is corrupt: prefetching its shard applies the policy."""
        split = self.split
        shards = shard_of(split.starts, indices)
        positions = indices - split.starts[shards]
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            try:
                list(pool.map(self._index, unique(shards).tolist()))
                found = list(pool.map(self._read, shards.tolist(), positions.tolist()))
            except (AdaInfError, NotFound, ValueError):
                return None
        for row, (image, _) in enumerate(found):
            out[row] = image
        return np.array([label for _, label in found])

    def _read_index(self, shard: int) -> ShardIndex:
        return self.split.folder.index(self.split.split.shard(shard))

    def _read(self, shard: int, position: int) -> tuple[Pixels, int]:
        index, folder = self._index(shard), self.split.folder
        offset, size = index.image_offsets[position], index.image_sizes_bytes[position]
        data = folder.run.store.get_range(folder.key(index.tar.key), offset, size)
        if zlib.crc32(data) != index.image_crc32s[position]:
            raise ValueError("CRC-32 does not match the index")
        return self.split.fit(decode_image(data, verified=True)), index.labels[position]
