"""The sources of a stream, and how their splits are opened: all with the same settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from adainf.errors import BadInput
from adainf.shards.format.decode import Policy
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split
from adainf.shards.loader.cache import Cache, CacheTooSmall
from adainf.shards.loader.complete import CompleteSplit, one_size
from adainf.shards.loader.encoded import EncodedSplit
from adainf.shards.loader.in_memory import InMemorySplit
from adainf.shards.loader.weights import Weight, shown
from adainf.shards.loader.windowed import WindowedSplit
from adainf.shards.loader.windows import Windows


@dataclass(frozen=True)
class Source:
    """One set of shards, and the weight of each of its images or the share of them all."""

    folder: str | Path | ShardFolder
    """A folder or ``s3://bucket/prefix`` with ``manifest.json``."""
    weight: Weight = 1.0
    """An integer, a float or a `Fraction`."""
    split: str = "train"
    share: Weight | None = None
    """Share of the source in every batch, instead of a weight; sources without share divide the rest by weight x images."""

    def open(self) -> ShardFolder:
        """Read the manifest. Raises `BadInput` where there is none."""
        if isinstance(self.folder, ShardFolder):
            return self.folder
        if not isinstance(self.folder, str | Path):
            raise BadInput(
                f"a source is {shown(self.folder)}; give the address of a set of shards, a folder or s3://bucket/prefix"
            )
        return ShardFolder.open(str(self.folder))


CacheMode = Literal["auto", "decoded", "encoded"]
"""What the node cache holds; see `mode_of` for ``auto``. Batches do not depend on it."""
SMALL_SET_BYTES = 1 << 30
MOST_EXPANSION = 3

Sources = Mapping[str, Source | str | Path]


def named(sources: Sources) -> dict[str, Source]:
    """By name. A bare address has weight 1. Raises `BadInput` for anything but a mapping."""
    if not isinstance(sources, Mapping):
        raise BadInput(f"sources is {shown(sources)}; give a dict of NAME: ADDRESS or NAME: Source(ADDRESS, weight)")
    for name in sources:
        if not isinstance(name, str) or not name:
            raise BadInput(f"a source has the name {shown(name)}; give it a string that is not empty")
    return {name: source if isinstance(source, Source) else Source(source) for name, source in sources.items()}


@dataclass(frozen=True)
class Opener:
    """Opens the splits of a stream."""

    cache: Cache
    damage: Policy
    size_px: int | None
    window_shards: int | None
    mode: CacheMode = "auto"
    originals: bool = False
    """Whether a source keeps the files of its photos; see `Stream.originals`."""

    def windows(self, folder: ShardFolder, split: str) -> Windows | None:
        """The windows of a split, without reading its shards; None where images are shuffled over the entire split."""
        return None if self.window_shards is None else self.windows_of(folder.split(split))

    def windows_of(self, split: Split) -> Windows:
        """The windows of a split of a windowed stream."""
        assert self.window_shards is not None
        return Windows(np.array(split.shard_images), self.window_shards)

    def open(self, folder: ShardFolder, split: str) -> CompleteSplit | WindowedSplit:
        """A split in the cache. Raises `BadInput` where it does not fit."""
        windows = self.windows(folder, split)
        if windows is not None:
            return WindowedSplit(folder, split, self.cache, self.damage, self.size_px, windows)
        mode = mode_of(folder, split, self.size_px) if self.mode == "auto" else self.mode
        if mode == "decoded":
            try:
                return InMemorySplit(folder, split, self.cache, self.damage, self.size_px)
            except CacheTooSmall:
                if self.mode == "decoded" or encoded_bytes(folder.split(split)) > decoded_bytes(folder, split, self.size_px):
                    raise
        return EncodedSplit(folder, split, self.cache, self.damage, self.size_px)


def mode_of(folder: ShardFolder, split: str, size_px: int | None) -> Literal["decoded", "encoded"]:
    """Decoded pixels where they take at most 1 GiB, or at most three times the bytes of the shards; else encoded images.

    Originals, of which crops are cut, are always cached encoded.
    """
    if folder.shards.originals is not None:
        return "encoded"
    pixels = decoded_bytes(folder, split, size_px)
    return "decoded" if pixels <= max(SMALL_SET_BYTES, MOST_EXPANSION * encoded_bytes(folder.split(split))) else "encoded"


def decoded_bytes(folder: ShardFolder, split: str, size_px: int | None) -> int:
    """The bytes of the decoded images. Raises `BadInput` where images differ in size."""
    height, width = one_size(folder, size_px)
    return folder.split(split).images * height * width * 3


def encoded_bytes(split: Split) -> int:
    """The bytes of the shards."""
    return sum(split.tar_sizes_bytes)
