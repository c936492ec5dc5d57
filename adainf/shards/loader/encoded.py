"""An encoded split: its images as they are stored, in one file of the node cache, decoded when a batch takes them.

The cache takes the bytes of the shards, once; pixels of photos would take some eight times as many. Threads decode the images
of a batch in parallel (the decoders release the GIL), each into its row, so the batch does not depend on the threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.crops import Shape, cut, shape_of
from adainf.shards.format.decode import SMALL_BYTES, Corruption, Policy, corruption_error, fetch_shard, fitted, replacements
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.reading import decoding
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.complete import CompleteSplit, Draw, Taken, map_file, one_size
from adainf.shards.loader.permutation import Integers, shard_of

_PLACE = 5
"""Columns of ``places``: offset and size of the encoded image, height, width and EXIF orientation."""
_CHUNKS = 4
"""Parts of a batch per thread: photos differ in size."""
_BLOCK_IMAGES = 256


def threads() -> int:
    """Threads that decode: the CPUs of this process, divided by the processes of the node (LOCAL_WORLD_SIZE)."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, len(os.sched_getaffinity(0)) // max(1, int(local) if local.isascii() and local.isdigit() else 1))


class EncodedSplit(CompleteSplit):
    """The images of one split by index, once their shards are ready.

    File ``encoded`` holds the tars one after the other; ``places`` is N x 5 int64. An image that cannot be decoded is found
    when it is taken: the policy applies then.
    """

    def __init__(self, folder: ShardFolder, split: str, cache: Cache, policy: Policy, size_px: int | None = None) -> None:
        self.size = one_size(folder, size_px)
        self._reading, self._resize_px = decoding(folder.shards, size_px)
        self._scaled = self._reading.square_px is not None
        described = folder.split(split)
        self._tar_starts = np.concatenate([[0], np.cumsum(described.tar_sizes_bytes)]).astype(np.int64)
        size_bytes = int(self._tar_starts[-1])
        settings: dict[str, object] = {"encoded": True}
        super().__init__(folder, split, cache, policy, settings, size_bytes + described.images * 8 * _PLACE)
        self._data: Pixels = map_file(self.entry.path / "encoded", np.uint8, (size_bytes,))
        self._places: NDArray[np.int64] = map_file(self.entry.path / "places", np.int64, (described.images, _PLACE))
        workers = 1 if size_bytes < SMALL_BYTES * described.images else threads()  # small images: see `SMALL_BYTES`
        self._pool = ThreadPoolExecutor(workers, "decode") if workers > 1 else None
        self._parts = workers * _CHUNKS
        self._undecodable: dict[int, int] = {}

    def prefetch(self, number: int) -> None:
        """Fetch, verify and publish one shard; the caller holds its lock. Raises `BadInput` as `fetch_shard` does."""
        shard = self.split.shard(number)
        fetched = fetch_shard(self.folder, shard, self.policy)
        entries, corrupt = fetched.entries, fetched.corruptions(shard)
        actual = replacements(self.folder, shard, len(entries.keys), fetched.problems)
        places = np.zeros((len(entries.keys), _PLACE), np.int64)
        places[:, 0], places[:, 1] = entries.offsets + self._tar_starts[number], entries.sizes_bytes
        for row, (at, size) in enumerate(zip(entries.offsets.tolist(), entries.sizes_bytes.tolist(), strict=True)):
            if row not in fetched.problems:
                places[row, 2:] = shape_of(bytes(fetched.data[at : at + size]), self._reading)
        write_at(self.entry.path / "encoded", np.frombuffer(fetched.data, np.uint8), int(self._tar_starts[number]))
        write_at(self.entry.path / "places", places, int(self.starts[number]) * 8 * _PLACE)
        self.publish(number, entries.labels, actual, corrupt)

    def take(self, indices: Integers, outs: Sequence[Pixels], draw: Draw | None = None) -> Taken:
        """Decode the images into `outs`, one array n x H x W x 3 per view; without `draw` there is one view, the image itself.

        Their shards must be ready. Raises `BadInput` for an image that cannot be decoded, by the policy.
        """
        boxes = None if draw is None else draw(indices, *self._places[indices, 2:4].T)

        def decode(rows: range) -> list[int]:
            return [
                self._take_one(int(indices[row]), row, outs, draw, None if boxes is None else boxes[:, row]) for row in rows
            ]

        count = len(indices)
        parts = [range(count * part // self._parts, count * (part + 1) // self._parts) for part in range(self._parts)]
        done = map(decode, parts) if self._pool is None else self._pool.map(decode, parts)
        actual = np.array([index for part in done for index in part], np.int64)
        return Taken(actual, self._labels[actual])

    def render(self, data: bytes, index: int, row: int, outs: Sequence[Pixels], draw: Draw | None) -> None:
        """Decode an encoded image, whose shard need not be ready, into one row. Raises `ValueError` as `decode_image` does."""
        shape = shape_of(data, self._reading)
        self._render(data, shape, row, outs, None if draw is None else self._drawn(draw, index, shape))

    def all_images(self) -> Pixels:
        """N x H x W x 3 in memory, once every shard is ready."""
        images = np.empty((len(self), *self.size, 3), np.uint8)
        for first in range(0, len(self), _BLOCK_IMAGES):
            block = images[first : first + _BLOCK_IMAGES]
            self.take(self.replacements(np.arange(first, first + len(block))), [block])
        return images

    def close(self) -> None:
        """Release the maps and the folder of the cache; it can be evicted then."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        del self._data, self._places
        super().close()

    def _take_one(self, index: int, row: int, outs: Sequence[Pixels], draw: Draw | None, boxes: Integers | None) -> int:
        """Decode an image, or the next one that can be decoded, into one row; the index of that."""
        for candidate in self._candidates(index):
            offset, size, *shape = self._places[candidate].tolist()
            if candidate != index and draw is not None:
                boxes = self._drawn(draw, candidate, Shape(*shape))
            try:
                self._render(bytes(self._data[offset : offset + size]), Shape(*shape), row, outs, boxes)
            except ValueError as error:
                self._record(candidate, offset, str(error))
            else:
                if candidate != index:
                    self._undecodable[index] = candidate
                return candidate
        number = int(shard_of(self.starts, np.array([index]))[0])
        where, count = self.folder.locate(self.split.tar_keys[number]), self.split.shard_images[number]
        raise BadInput(f"{where}: all {count} samples are corrupt; restore or recreate the shard")

    def _candidates(self, index: int) -> Iterator[int]:
        """The image, then the following ones of its shard, cyclically, without those that are corrupt as stored."""
        yield self._undecodable.get(index, index)
        number = int(shard_of(self.starts, np.array([index]))[0])
        start, count = int(self.starts[number]), self.split.shard_images[number]
        for step in range(1, count):
            candidate = start + (index - start + step) % count
            if int(self._replacements[candidate]) == candidate:
                yield candidate

    def _record(self, index: int, offset: int, reason: str) -> None:
        number = int(shard_of(self.starts, np.array([index]))[0])
        shard = self.split.shard(number)
        key = self.folder.index(shard).keys[index - int(self.starts[number])]
        corruption = Corruption(shard.tar.key, key, offset - int(self._tar_starts[number]), reason)
        if self.policy == "fail":
            raise corruption_error(self.folder, corruption)
        if corruption not in self.quarantine.records():
            self.quarantine.add([corruption])
        self.quarantine.check()

    def _render(self, data: bytes, shape: Shape, row: int, outs: Sequence[Pixels], boxes: Integers | None) -> None:
        if boxes is not None:
            cut(data, shape, boxes.tolist(), [out[row] for out in outs], self._reading, self._scaled)
        else:
            outs[0][row] = fitted(decode_image(data, verified=True, reading=self._reading), self.size, self._resize_px)

    @staticmethod
    def _drawn(draw: Draw, index: int, shape: Shape) -> Integers:
        numbers = (np.array([number]) for number in (index, shape.height_px, shape.width_px))
        return draw(*numbers)[:, 0]
