"""A split that need not fit the disk, or whose images differ in size: one file for each decoded shard, the last few kept.

Files are dropped by unlinking: a process that still maps one reads on, so nobody has to be asked.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.shards.format.decode import Policy, decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.arrays import Integers, distinct, owners
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.quarantine import Quarantine
from adainf.shards.loader.windows import Windows

WINDOWS_KEPT = 4
"""Windows on disk: the one that is read, the next, and some for processes that are elsewhere."""
_HEAD, _ROW = 16, 40
"""Bytes of a file's head, and of a row of its table."""


class _Shard(NamedTuple):
    """A mapped file: how many images, whether any is damaged; a table of a row for each (label, stand-in, height, width, offset
    of its pixels); then the pixels."""

    table: NDArray[np.int64]
    pixels: Pixels
    """All of them, one after the other."""
    rows: Pixels | None
    """n x bytes where all images have one size."""


class WindowedSplit:
    """The images of one split by index, shards coming and going."""

    def __init__(
        self,
        folder: ShardFolder,
        split: str,
        cache: Cache,
        policy: Policy,
        size_px: int | None,
        windows: Windows,
    ) -> None:
        self.folder, self.split = folder, folder.split(split)
        self._policy, self._resize_px = policy, size_px
        self.size = folder.shards.size if size_px is None else (size_px, size_px)
        self.starts = np.concatenate([[0], np.cumsum(self.split.shard_images)])
        self._kept = min(WINDOWS_KEPT * windows.most_shards, len(self.split))
        pixels = self.size[0] * self.size[1] * 3 if self.size else 0
        decided_by: dict[str, object] = {
            "size_px": self.size,
            "resized": size_px is not None,
            "windowed": True,
        }
        self.entry = cache.entry(folder, split, decided_by, self._kept * max(self.split.shard_images) * (pixels + _ROW))
        self.quarantine = Quarantine(self.entry.path / "quarantine.jsonl", folder, self.split.images, policy)
        self._held: dict[int, _Shard] = {}

    def __len__(self) -> int:
        return self.split.images

    def unfilled(self, indices: Integers) -> Integers:
        """The shards that hold these images and are not filled; those that are, are held from now on. Raises `BadInput` where
        one is damaged, as the policy says."""
        shards = distinct(owners(self.starts, indices))
        return np.array([number for number in shards.tolist() if not self._hold(number)], np.int64)

    def is_ready(self, number: int) -> bool:
        return number in self._held or self._path(number).exists()

    def fill(self, number: int) -> None:
        """Fetch, decode and publish one shard, and drop the oldest; the caller holds its lock. Raises as `decode_shard`."""
        decoded = decode_shard(self.folder, self.split.shard(number), self._policy, self.size, self._resize_px)
        table = np.empty((len(decoded.labels), _ROW // 8), np.int64)
        table[:, 0], table[:, 1] = decoded.labels, decoded.stand_ins
        table[:, 2:4] = [image.shape[:2] for image in decoded.images]
        sizes = table[:, 2] * table[:, 3] * 3
        table[:, 4] = np.cumsum(sizes) - sizes
        self.quarantine.add(decoded.damaged)
        path, new = self._path(number), self.entry.path / f"{number}.new"
        new.unlink(missing_ok=True)  # of a process that was killed: nobody else writes while the lock is ours
        try:
            write_at(new, np.array([len(table), bool(decoded.damaged)], np.int64), 0)
            write_at(new, table, _HEAD)
            at = _HEAD + table.nbytes
            if isinstance(decoded.images, list):
                for image, offset in zip(decoded.images, table[:, 4].tolist(), strict=True):
                    write_at(new, image, at + offset)
            else:
                write_at(new, decoded.images, at)
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)
        self._drop_oldest()

    def stand_ins(self, indices: Integers) -> Integers:
        """The images that are in the place of these, whose shards are held."""
        images = indices.copy()
        for number, rows in self._by_shard(indices):
            images[rows] = self._held[number].table[indices[rows] - self.starts[number], 1] + self.starts[number]
        return images

    def take(self, indices: Integers, out: Pixels) -> NDArray[np.int64]:
        """Copy the images into `out` (b x H x W x 3); their labels. Their shards are held."""
        labels = np.empty_like(indices)
        flat = out.reshape(len(indices), -1)
        for number, rows in self._by_shard(indices):
            shard, places = self._held[number], indices[rows] - self.starts[number]
            assert shard.rows is not None
            flat[rows] = shard.rows[places]
            labels[rows] = shard.table[places, 0]
        return labels

    def take_each(self, indices: Integers) -> tuple[list[Pixels], NDArray[np.int64]]:
        """The images, H x W x 3 each, and their labels; for images of several sizes."""
        images: list[Pixels] = [np.empty((0, 0, 3), np.uint8)] * len(indices)
        labels = np.empty_like(indices)
        for number, rows in self._by_shard(indices):
            shard = self._held[number]
            for row, place in zip(rows.tolist(), (indices[rows] - self.starts[number]).tolist(), strict=True):
                label, _, height, width, offset = shard.table[place].tolist()
                images[row] = shard.pixels[offset : offset + height * width * 3].reshape(height, width, 3).copy()
                labels[row] = label
        return images, labels

    def let_go(self, wanted: Integers) -> None:
        """Hold no shards but these: what was dropped frees its space once nobody maps it."""
        keep = set(wanted.tolist())
        self._held = {number: shard for number, shard in self._held.items() if number in keep}

    def close(self) -> None:
        self._held.clear()
        self.entry.close()

    def _by_shard(self, indices: Integers) -> list[tuple[int, Integers]]:
        shards = owners(self.starts, indices)
        order = np.argsort(shards, kind="stable")
        numbers = distinct(shards)
        firsts = np.searchsorted(shards[order], numbers)
        return list(zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True))

    def _hold(self, number: int) -> bool:
        if number in self._held:
            return True
        path = self._path(number)
        try:
            data = np.memmap(path, np.uint8, "r")
            os.utime(path)  # used now
        except FileNotFoundError:
            return False
        count, damaged = data[:_HEAD].view(np.int64).tolist()
        if damaged:
            self.quarantine.check()
        end = _HEAD + _ROW * count
        table, pixels = data[_HEAD:end].view(np.int64).reshape(count, _ROW // 8), data[end:]
        self._held[number] = _Shard(table, pixels, pixels.reshape(count, -1) if self.size else None)
        return True

    def _path(self, number: int) -> Path:
        return self.entry.path / f"{number}.shard"

    def _drop_oldest(self) -> None:
        files = []
        for path in self.entry.path.glob("*.shard"):
            with suppress(FileNotFoundError):
                files.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(files)[: -self._kept]:
            path.unlink(missing_ok=True)
