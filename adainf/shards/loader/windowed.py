"""A windowed split, for sets larger than the disk or images of several sizes: one file per decoded shard, the last few kept.

Files are evicted by unlinking. A process that still maps one can read on, so no coordination is needed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.shards.format.decode import Policy, decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import Cache, in_blocks, write_at
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.shards.loader.quarantine import Quarantine
from adainf.shards.loader.windows import Windows

WINDOWS_KEPT = 4
"""Windows on disk: the current one, the next, and some for processes at other positions."""
_HEADER, _ROW = 16, 40
"""Bytes of a file's header, and of a row of its table."""


class _Shard(NamedTuple):
    """A mapped file: a header (number of images, whether any is corrupt), a table with one row per image (label, replacement,
    height, width, offset of its pixels), then the pixels."""

    table: NDArray[np.int64]
    pixels: Pixels
    """Of all images, concatenated."""
    rows: Pixels | None
    """n x bytes per image, where all images have one size."""


class WindowedSplit:
    """The images of one split by index, for the shards that are mapped."""

    def __init__(
        self,
        folder: ShardFolder,
        split: str,
        cache: Cache,
        policy: Policy,
        size_px: int | None,
        windows: Windows,
    ) -> None:
        self.folder, self.split, self._name = folder, folder.split(split), split
        self._policy, self._resize_px = policy, size_px
        self.size = folder.shards.size if size_px is None else (size_px, size_px)
        self.starts = np.concatenate([[0], np.cumsum(self.split.shard_images)])
        self._kept = min(WINDOWS_KEPT * windows.max_shards, len(self.split))
        pixels = self.size[0] * self.size[1] * 3 if self.size else 0
        settings: dict[str, object] = {
            "size_px": self.size,
            "resized": size_px is not None,
            "windowed": True,
        }
        self._cache = cache
        # Images of several sizes are not measured here: each file is allocated before it is written.
        largest = _HEADER + max(self.split.shard_images) * (pixels + _ROW) if self.size else 0
        self.entry = cache.entry(folder, split, settings, self._kept * in_blocks(largest))
        self.quarantine = Quarantine(self.entry.path / "quarantine.jsonl", folder, self.split.images, policy)
        self._mapped: dict[int, _Shard] = {}
        self._remove_unfinished()

    def __len__(self) -> int:
        return self.split.images

    @property
    def identity(self) -> tuple[str, str]:
        """The digest of the set, and the name of the split."""
        return self.folder.digest, self._name

    def missing(self, indices: Integers) -> Integers:
        """The shards of these images that are not ready; maps those that are. Raises `BadInput` for corruption, by the
        policy."""
        shards = unique(shard_of(self.starts, indices))
        return np.array([number for number in shards.tolist() if not self._map(number)], np.int64)

    def is_ready(self, number: int) -> bool:
        return number in self._mapped or self._path(number).exists()

    def prefetch(self, number: int) -> None:
        """Fetch, decode and publish one shard; the caller holds its lock. Raises `BadInput` as `decode_shard` and the cache."""
        decoded = decode_shard(self.folder, self.split.shard(number), self._policy, self.size, self._resize_px)
        table = np.empty((len(decoded.labels), _ROW // 8), np.int64)
        table[:, 0], table[:, 1] = decoded.labels, decoded.replacements
        table[:, 2:4] = [image.shape[:2] for image in decoded.images]
        sizes = table[:, 2] * table[:, 3] * 3
        table[:, 4] = np.cumsum(sizes) - sizes
        self.quarantine.add(decoded.corrupt)
        path, new = self._path(number), self.entry.path / f"{number}.new"
        new.unlink(missing_ok=True)  # left by a killed process: only the holder of the lock writes
        try:
            self._evict_oldest()
            self._cache.allocate(self.entry, new, _HEADER + table.nbytes + int(sizes.sum()))
            write_at(new, np.array([len(table), bool(decoded.corrupt)], np.int64), 0)
            write_at(new, table, _HEADER)
            at = _HEADER + table.nbytes
            if isinstance(decoded.images, list):
                for image, offset in zip(decoded.images, table[:, 4].tolist(), strict=True):
                    write_at(new, image, at + offset)
            else:
                write_at(new, decoded.images, at)
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)

    def replacements(self, indices: Integers) -> Integers:
        """The images to use for these, whose shards are mapped."""
        images = indices.copy()
        for number, rows in self._by_shard(indices):
            images[rows] = self._mapped[number].table[indices[rows] - self.starts[number], 1] + self.starts[number]
        return images

    def take(self, indices: Integers, out: Pixels) -> NDArray[np.int64]:
        """Copy the images into `out` (b x H x W x 3); their labels. Their shards must be mapped."""
        labels = np.empty_like(indices)
        flat = out.reshape(len(indices), math.prod(out.shape[1:]))
        for number, rows in self._by_shard(indices):
            shard, positions = self._mapped[number], indices[rows] - self.starts[number]
            assert shard.rows is not None
            flat[rows] = shard.rows[positions]
            labels[rows] = shard.table[positions, 0]
        return labels

    def take_each(self, indices: Integers) -> tuple[list[Pixels], NDArray[np.int64]]:
        """The images, H x W x 3 each, and their labels; for images of several sizes."""
        images: list[Pixels] = [np.empty((0, 0, 3), np.uint8)] * len(indices)
        labels = np.empty_like(indices)
        for number, rows in self._by_shard(indices):
            shard = self._mapped[number]
            for row, position in zip(rows.tolist(), (indices[rows] - self.starts[number]).tolist(), strict=True):
                label, _, height, width, offset = shard.table[position].tolist()
                images[row] = shard.pixels[offset : offset + height * width * 3].reshape(height, width, 3).copy()
                labels[row] = label
        return images, labels

    def retain(self, shards: Integers) -> None:
        """Unmap all shards except these: an evicted file frees its space once no process maps it."""
        keep = set(shards.tolist())
        self.entry.needed = {self._path(number).name for number in keep}
        self._mapped = {number: shard for number, shard in self._mapped.items() if number in keep}

    def protect(self, shards: Integers) -> None:
        """Evict these, which are not mapped yet, not before the next `retain`."""
        self.entry.needed = self.entry.needed | {self._path(number).name for number in shards.tolist()}

    def close(self) -> None:
        self._mapped.clear()
        self.entry.close()

    def _by_shard(self, indices: Integers) -> list[tuple[int, Integers]]:
        if not len(indices):
            return []
        shards = shard_of(self.starts, indices)
        order = np.argsort(shards, kind="stable")
        numbers = unique(shards)
        firsts = np.searchsorted(shards[order], numbers)
        return list(zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True))

    def _map(self, number: int) -> bool:
        if number in self._mapped:
            return True
        path = self._path(number)
        try:
            data = np.memmap(path, np.uint8, "r")
            os.utime(path)  # the time of last use
        except FileNotFoundError:
            return False
        count, corrupt = data[:_HEADER].view(np.int64).tolist()
        if corrupt:
            self.quarantine.check()
        end = _HEADER + _ROW * count
        table, pixels = data[_HEADER:end].view(np.int64).reshape(count, _ROW // 8), data[end:]
        self._mapped[number] = _Shard(table, pixels, pixels.reshape(count, -1) if self.size else None)
        return True

    def _path(self, number: int) -> Path:
        return self.entry.path / f"{number}.shard"

    def _remove_unfinished(self) -> None:
        """Files of killed processes: their space counts, and only the prefetch of the same shard would replace them."""
        for path in self.entry.path.glob("*.new"):
            if self.entry.shard_locks.try_acquire(number := int(path.stem)):
                path.unlink(missing_ok=True)
                self.entry.shard_locks.release(number)

    def _evict_oldest(self) -> None:
        files = self.entry.evictable()
        extra = sum(1 for _ in self.entry.path.glob("*.shard")) + 1 - self._kept
        for _, path in files[: max(0, extra)]:
            path.unlink(missing_ok=True)
