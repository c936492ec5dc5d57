"""What an in-memory and an encoded split share: all images of a split in the node cache, one mark per shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.shards.format.decode import Corruption, Policy
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import Cache, write_at
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.shards.loader.quarantine import Quarantine

_READY, _CORRUPT = 1, 2


Draw = Callable[[Integers, Integers, Integers], Integers]
"""(indices, heights, widths), each n → boxes, V x n x 4: top, left, height and width in pixels of each view."""


class Taken(NamedTuple):
    """Images that a batch takes."""

    indices: Integers
    """With the replacements of images that could not be decoded."""
    labels: Integers


class Crops(Protocol):
    """The random crops of a training: each is a function of (step, source, image), like everything that is drawn."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of each view."""
        ...

    def drawing(self, step: int, source: int) -> Draw:
        """How the crops of a source's images are drawn at a step."""
        ...


class CompleteSplit:
    """The images of one split by index, once their shards are ready.

    ``labels`` and ``stand-ins`` (the replacements, see `DecodedShard`) are N int64. ``state`` holds one byte per shard, which
    is written last: where it is set, the data are complete.
    """

    size: tuple[int, int]
    """(height, width) of every image that a batch takes."""

    def __init__(
        self,
        folder: ShardFolder,
        split: str,
        cache: Cache,
        policy: Policy,
        settings: dict[str, object],
        content_bytes: int,
    ) -> None:
        """`content_bytes`: the space of the images."""
        self.folder, self.split, self._name, self.policy = folder, folder.split(split), split, policy
        count = self.split.images
        self.starts = np.concatenate([[0], np.cumsum(self.split.shard_images)])
        self.entry = cache.entry(folder, split, settings, content_bytes + count * 16)
        self.quarantine = Quarantine(self.entry.path / "quarantine.jsonl", folder, count, policy)
        self._files = {name: self.entry.path / name for name in ("labels", "stand-ins", "state")}
        self._labels: Integers = map_file(self._files["labels"], np.int64, (count,))
        self._replacements: Integers = map_file(self._files["stand-ins"], np.int64, (count,))
        self._state: NDArray[np.uint8] = map_file(self._files["state"], np.uint8, (len(self.split),))
        self._complete = self._has_corruption = False

    def __len__(self) -> int:
        return self.split.images

    @property
    def identity(self) -> tuple[str, str]:
        """The digest of the set, and the name of the split."""
        return self.folder.digest, self._name

    def prefetch(self, number: int) -> None:
        """Fetch and publish one shard; the caller holds its lock."""
        raise NotImplementedError

    def publish(self, number: int, labels: Integers, replacements: Integers, corrupt: list[Corruption]) -> None:
        """Mark a shard as ready, whose images are written; `replacements` by number in the shard."""
        start = int(self.starts[number])
        write_at(self._files["labels"], labels, start * 8)
        write_at(self._files["stand-ins"], replacements + start, start * 8)
        self.quarantine.add(corrupt)
        write_at(self._files["state"], np.array([_CORRUPT if corrupt else _READY], np.uint8), number)

    def take(self, indices: Integers, outs: Sequence[Pixels], draw: Draw | None = None) -> Taken:
        """Write the images, whose shards must be ready, into `outs`, one array n x H x W x 3 per view of `draw`.

        Without `draw` there is one view, the image itself.
        """
        raise NotImplementedError

    def render(self, data: bytes, index: int, row: int, outs: Sequence[Pixels], draw: Draw | None) -> None:
        """Decode an encoded image, whose shard need not be ready, into one row. Raises `ValueError` as `decode_image` does."""
        raise NotImplementedError

    def all_images(self) -> Pixels:
        """N x H x W x 3, once every shard is ready."""
        raise NotImplementedError

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

    def replacements(self, indices: Integers) -> Integers:
        """The images to use for these, whose shards are ready. Raises `BadInput` for corruption, by the policy."""
        if not self._complete:
            complete = bool(self._state.all())  # read before the marks, which may change in between
            self._has_corruption = bool((self._state == _CORRUPT).any())
            if self._has_corruption:
                self.quarantine.check()
            self._complete = complete
        return self._replacements[indices] if self._has_corruption else indices

    def close(self) -> None:
        """Release the maps and the folder of the cache; it can be evicted then."""
        del self._labels, self._replacements, self._state
        self.entry.close()


def one_size(folder: ShardFolder, size_px: int | None) -> tuple[int, int]:
    """(height, width) of every decoded image. Raises `BadInput` where they differ."""
    size = folder.shards.size if size_px is None else (size_px, size_px)
    if size is None:
        raise BadInput(
            f"{folder.uri} has images of several sizes; set size_px to resize them to one size, or window_shards to keep theirs"
        )
    return size


def map_file(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """A read-only map of a file of that size, sparse at first; it shows what other processes write."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return np.memmap(path, dtype, "r", shape=shape)
