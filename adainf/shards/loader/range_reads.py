"""Range reads at start-up: fetch the single images of the first batches, without waiting for complete shards.

A batch shuffled over a hundred shards needs an image or two of each: some hundred small reads instead of gigabytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np

from adainf.errors import AdaInfError
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.png import Pixels
from adainf.shards.loader.complete import CompleteSplit, Draw
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.storage import NotFound

MAX_CONCURRENT_READS = 8


class RangeReader:
    """Reads single images of a split whose shards are not cached yet."""

    def __init__(self, split: CompleteSplit) -> None:
        self.split = split
        self._index = lru_cache(None)(self._read_index)

    def take(self, indices: Integers, rows: Integers, outs: Sequence[Pixels], draw: Draw | None) -> Integers | None:
        """Read the images into these rows of `outs` (see `CompleteSplit.take`); their labels.

        None where any is corrupt: prefetching its shard applies the policy.
        """
        shards = shard_of(self.split.starts, indices)
        positions = indices - self.split.starts[shards]
        each = [column.tolist() for column in (shards, positions, indices, rows)]
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            try:
                list(pool.map(self._index, unique(shards).tolist()))
                return np.array(list(pool.map(partial(self._read, outs, draw), *each)), np.int64)
            except (AdaInfError, NotFound, ValueError):
                return None

    def _read_index(self, shard: int) -> ShardIndex:
        return self.split.folder.index(self.split.split.shard(shard))

    def _read(self, outs: Sequence[Pixels], draw: Draw | None, shard: int, position: int, image: int, row: int) -> int:
        index, folder = self._index(shard), self.split.folder
        offset, size = index.image_offsets[position], index.image_sizes_bytes[position]
        data = folder.run.store.get_range(folder.key(index.tar.key), offset, size)
        if zlib.crc32(data) != index.image_crc32s[position]:
            raise ValueError("CRC-32 does not match the index")
        self.split.render(data, image, row, outs, draw)
        return index.labels[position]
