"""An in-memory split: all its images decoded into one memory map of uint8 pixels, shared by all processes of a node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.decode import Policy, decode_shard, fitted
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.shards.loader.quarantine import Quarantine

_READY, _CORRUPT = 1, 2


class InMemorySplit:
    """The images of one split by index, once their shards are ready.

    File ``pixels`` is N x H x W x 3; ``labels`` and ``stand-ins`` (the replacements, see `DecodedShard`) are N int64.
    ``state`` holds one byte per shard, which is written last: where it is set, the data are complete.
    """

    def __init__(self, folder: ShardFolder, split: str, cache: Cache, policy: Policy, size_px: int | None = None) -> None:
        self.size = _one_size(folder, size_px)
        self._policy, self._resize_px = policy, size_px
        self.folder, self.split, self._name = folder, folder.split(split), split
        count, self._row_bytes = self.split.images, self.size[0] * self.size[1] * 3
        self.starts = np.concatenate([[0], np.cumsum(self.split.shard_images)])
        settings: dict[str, object] = {"size_px": self.size, "resized": size_px is not None}
        self.entry = cache.entry(folder, split, settings, count * (self._row_bytes + 16))
        self.quarantine = Quarantine(self.entry.path / "quarantine.jsonl", folder, count, policy)
        self._files = {name: self.entry.path / name for name in ("pixels", "labels", "stand-ins", "state")}
        self._pixels: Pixels = _map(self._files["pixels"], np.uint8, (count, self._row_bytes))
        self._labels: Integers = _map(self._files["labels"], np.int64, (count,))
        self._replacements: Integers = _map(self._files["stand-ins"], np.int64, (count,))
        self._state: NDArray[np.uint8] = _map(self._files["state"], np.uint8, (len(self.split),))
        self._complete = self._has_corruption = False

    def __len__(self) -> int:
        return self.split.images

    @property
    def identity(self) -> tuple[str, str]:
        """The digest of the set, and the name of the split."""
        return self.folder.digest, self._name

    def all_images(self) -> Pixels:
        """N x H x W x 3, once every shard is ready: a map of the file, copied only where some images are replaced."""
        everything = np.arange(len(self))
        actual = self.replacements(everything)
        # A private (copy-on-write) map: a caller's writes do not reach the cache.
        images = np.memmap(self._files["pixels"], np.uint8, "c", shape=(len(self), *self.size, 3))
        return np.asarray(images) if actual is everything else images[actual]

    def all_labels(self) -> Integers:
        """The N labels of `all_images`; -1 is none."""
        return self._labels[self.replacements(np.arange(len(self)))]

    def missing(self, indices: Integers) -> Integers:
        """The shards of these images that are not ready."""
        if self._complete:
            return indices[:0]
        shards = unique(shard_of(self.starts, indices))
        return shards[self._state[shards] == 0]

    def are_ready(self, indices: Integers) -> NDArray[np.bool_]:
        """For each image, whether its shard is ready."""
        return self._state[shard_of(self.starts, indices)] != 0

    def is_ready(self, number: int) -> bool:
        return bool(self._state[number])

    def prefetch(self, number: int) -> None:
        """Fetch, decode and publish one shard; the caller holds its lock. Raises `BadInput` as `decode_shard` does."""
        start = int(self.starts[number])
        decoded = decode_shard(self.folder, self.split.shard(number), self._policy, self.size, self._resize_px)
        write_at(self._files["pixels"], np.asarray(decoded.images), start * self._row_bytes)
        write_at(self._files["labels"], decoded.labels, start * 8)
        write_at(self._files["stand-ins"], decoded.replacements + start, start * 8)
        self.quarantine.add(decoded.corrupt)
        write_at(self._files["state"], np.array([_CORRUPT if decoded.corrupt else _READY], np.uint8), number)

    def replacements(self, indices: Integers) -> Integers:
        """The images to use for these, whose shards are ready. Raises `BadInput` for corruption, by the policy."""
        if not self._complete:
            complete = bool(self._state.all())  # read before the marks, which may change in between
            self._has_corruption = bool((self._state == _CORRUPT).any())
            if self._has_corruption:
                self.quarantine.check()
            self._complete = complete
        return self._replacements[indices] if self._has_corruption else indices

    def take(self, indices: Integers, out: Pixels) -> NDArray[np.int64]:
        """Copy the images into `out` (b x H x W x 3); their labels. Their shards must be ready."""
        # mode "raise" would make numpy buffer the output
        np.take(self._pixels, indices, axis=0, out=out.reshape(len(indices), self._row_bytes), mode="clip")
        return self._labels[indices]

    def fit(self, image_HWC: Pixels) -> Pixels:
        """A decoded image at the size of this split. Raises `ValueError` where its size differs."""
        return fitted(image_HWC, self.size, self._resize_px)

    def close(self) -> None:
        """Release the maps and the folder of the cache; it can be evicted then."""
        del self._pixels, self._labels, self._replacements, self._state
        self.entry.close()


def _one_size(folder: ShardFolder, size_px: int | None) -> tuple[int, int]:
    """(height, width) of every decoded image. Raises `BadInput` where they differ."""
    size = folder.shards.size if size_px is None else (size_px, size_px)
    if size is None:
        raise BadInput(
            f"{folder.uri} has images of several sizes; set size_px to resize them to one size, or window_shards to keep theirs"
        )
    return size


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """A read-only map of a file of that size, sparse at first; it shows what other processes write."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return np.memmap(path, dtype, "r", shape=shape)
