"""A split decoded as a whole: one memory map of uint8 pixels that all processes of a node share."""

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
from adainf.shards.loader.arrays import Integers, distinct, owners
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.quarantine import Quarantine

_READY, _DAMAGED = 1, 2


class WholeSplit:
    """The images of one split by index, once their shards are filled.

    ``pixels`` is N x H x W x 3, ``labels`` and ``stand-ins`` N int64 (see `decode`), ``state`` a byte for each shard that is
    set last: who sees it sees the rest.
    """

    def __init__(self, folder: ShardFolder, split: str, cache: Cache, policy: Policy, size_px: int | None = None) -> None:
        self.folder, self.split = folder, folder.split(split)
        self._policy, self._resize_px = policy, size_px
        self.size = one_size(folder, size_px)
        count, self._row_bytes = self.split.images, self.size[0] * self.size[1] * 3
        self.starts = np.concatenate([[0], np.cumsum(self.split.shard_images)])
        decided_by: dict[str, object] = {"size_px": self.size, "resized": size_px is not None}
        self.entry = cache.entry(folder, split, decided_by, count * (self._row_bytes + 16))
        self._files = {name: self.entry.path / name for name in ("pixels", "labels", "stand-ins", "state")}
        self._pixels: Pixels = _map(self._files["pixels"], np.uint8, (count, self._row_bytes))
        self._labels: Integers = _map(self._files["labels"], np.int64, (count,))
        self._in_place: Integers = _map(self._files["stand-ins"], np.int64, (count,))
        self._state: NDArray[np.uint8] = _map(self._files["state"], np.uint8, (len(self.split),))
        self.quarantine = Quarantine(self.entry.path / "quarantine.jsonl", folder, count, policy)
        self._settled = self._damage = False

    def __len__(self) -> int:
        return self.split.images

    def all_images(self) -> Pixels:
        """N x H x W x 3, when every shard is filled: a map of the file, copied only where samples stand in for others."""
        everything = np.arange(len(self))
        actual = self.stand_ins(everything)
        # A private map: what a careless caller writes is its own.
        images = np.memmap(self._files["pixels"], np.uint8, "c", shape=(len(self), *self.size, 3))
        return np.asarray(images) if actual is everything else images[actual]

    def all_labels(self) -> Integers:
        """N, of `all_images`; -1 is none."""
        return self._labels[self.stand_ins(np.arange(len(self)))]

    def unfilled(self, indices: Integers) -> Integers:
        """The shards that hold these images and are not filled yet."""
        if self._settled:
            return indices[:0]
        shards = distinct(owners(self.starts, indices))
        return shards[self._state[shards] == 0]

    def are_filled(self, indices: Integers) -> NDArray[np.bool_]:
        """For each image, whether its shard is filled."""
        return self._state[owners(self.starts, indices)] != 0

    def is_ready(self, number: int) -> bool:
        return bool(self._state[number])

    def fill(self, number: int) -> None:
        """Fetch, decode and publish one shard; the caller holds its lock. Raises `BadInput` as `decode_shard` does."""
        start = int(self.starts[number])
        decoded = decode_shard(self.folder, self.split.shard(number), self._policy, self.size, self._resize_px)
        write_at(self._files["pixels"], np.asarray(decoded.images), start * self._row_bytes)
        write_at(self._files["labels"], decoded.labels, start * 8)
        write_at(self._files["stand-ins"], decoded.stand_ins + start, start * 8)
        self.quarantine.add(decoded.damaged)
        write_at(self._files["state"], np.array([_DAMAGED if decoded.damaged else _READY], np.uint8), number)

    def stand_ins(self, indices: Integers) -> Integers:
        """The images that are in the place of these, whose shards are filled. Raises `BadInput` as the policy says."""
        if not self._settled:
            settled = bool(self._state.all())  # before the look at the marks
            self._damage = bool((self._state == _DAMAGED).any())
            if self._damage:
                self.quarantine.check()
            self._settled = settled
        return self._in_place[indices] if self._damage else indices

    def take(self, indices: Integers, out: Pixels) -> NDArray[np.int64]:
        """Copy the images into `out` (b x H x W x 3); their labels. Their shards are filled."""
        # clip: numpy copies once more where it has to raise
        np.take(self._pixels, indices, axis=0, out=out.reshape(len(indices), self._row_bytes), mode="clip")
        return self._labels[indices]

    def fit(self, image_HWC: Pixels) -> Pixels:
        """A decoded image at the size of this split. Raises `ValueError` where it has another."""
        return fitted(image_HWC, self.size, self._resize_px)

    def close(self) -> None:
        self.entry.close()


def one_size(folder: ShardFolder, size_px: int | None) -> tuple[int, int]:
    """(height, width) of every decoded image. Raises `BadInput` where they differ."""
    size = folder.shards.size if size_px is None else (size_px, size_px)
    if size is None:
        raise BadInput(
            f"{folder.uri} has images of several sizes; set size_px to bring them to one, or window_shards to take them as "
            "they are"
        )
    return size


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """A file of that size, full of holes at first, for reading; what other processes write shows."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return np.memmap(path, dtype, "r", shape=shape)
