"""An in-memory split: all its images decoded into one memory map of uint8 pixels, shared by all processes of a node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adainf.shards.format.decode import Policy, decode_shard, fitted
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.reading import decoding
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.complete import CompleteSplit, Draw, Taken, map_file, one_size
from adainf.shards.loader.permutation import Integers


class InMemorySplit(CompleteSplit):
    """A split with a further file, ``pixels``: N x H x W x 3."""

    def __init__(self, folder: ShardFolder, split: str, cache: Cache, policy: Policy, size_px: int | None = None) -> None:
        self.size = one_size(folder, size_px)
        self._resize_px = size_px
        count, self._row_bytes = folder.split(split).images, self.size[0] * self.size[1] * 3
        settings: dict[str, object] = {"size_px": self.size, "resized": size_px is not None}
        super().__init__(folder, split, cache, policy, settings, count * self._row_bytes)
        self._pixels_file = self.entry.path / "pixels"
        self._pixels: Pixels = map_file(self._pixels_file, np.uint8, (count, self._row_bytes))

    def all_images(self) -> Pixels:
        """N x H x W x 3, once every shard is ready: a map of the file, copied only where some images are replaced."""
        everything = np.arange(len(self))
        actual = self.replacements(everything)
        # A private (copy-on-write) map: a caller's writes do not reach the cache.
        images = np.memmap(self._pixels_file, np.uint8, "c", shape=(len(self), *self.size, 3))
        return np.asarray(images) if actual is everything else images[actual]

    def prefetch(self, number: int) -> None:
        """Fetch, decode and publish one shard; the caller holds its lock. Raises `BadInput` as `decode_shard` does."""
        decoded = decode_shard(self.folder, self.split.shard(number), self.policy, self.size, self._resize_px)
        write_at(self._pixels_file, np.asarray(decoded.images), int(self.starts[number]) * self._row_bytes)
        self.publish(number, decoded.labels, decoded.replacements, decoded.corrupt)

    def take(self, indices: Integers, outs: Sequence[Pixels], draw: Draw | None = None) -> Taken:
        """Copy the images, whose shards must be ready, into the only array; there are no crops of decoded images."""
        # mode "raise" would make numpy buffer the output
        np.take(self._pixels, indices, axis=0, out=outs[0].reshape(len(indices), self._row_bytes), mode="clip")
        return Taken(indices, self._labels[indices])

    def render(self, data: bytes, index: int, row: int, outs: Sequence[Pixels], draw: Draw | None) -> None:
        """Decode an encoded image, whose shard need not be ready, into one row. Raises `ValueError` as `decode_image` does."""
        reading, resize_px = decoding(self.folder.shards, self._resize_px)
        outs[0][row] = fitted(decode_image(data, verified=True, reading=reading), self.size, resize_px)

    def close(self) -> None:
        """Release the maps and the folder of the cache; it can be evicted then."""
        del self._pixels
        super().close()
