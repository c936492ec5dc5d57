"""A source: samples in tars that lie somewhere, known by the index of each tar, or by a look at the tar where it has none."""

from __future__ import annotations

import mmap
import shutil
import tempfile
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from adainf.browse.lru import Lru
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split
from adainf.shards.format.scan import samples
from adainf.shards.loader.permutation import Integers
from adainf.storage import NotFound, ObjectInfo

MOST_TAR_BYTES = 2 * 2**30
"""Of a tar without an index, which has to be read whole to learn what is in it."""
_COLUMN_BYTES = 200
"""About what a sample takes in `Columns`: four numbers, and a key or two as Python has them."""
_COLUMNS_HELD_BYTES = 40_000_000


class Columns(NamedTuple):
    """The samples of one shard, in its order. Offsets and sizes are those of the encoded images, in bytes."""

    keys: list[str]
    offsets: Integers
    sizes_bytes: Integers
    crc32s: Integers
    labels: Integers
    """-1 is none."""
    texts: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.keys)


class Source(ABC):
    """What is shown as one: a split of a set, or a folder of tars. Safe among threads."""

    def __init__(self, name: str, run: Run, tar_keys: list[str], tar_sizes_bytes: list[int], counts: list[int | None]) -> None:
        self.name = name
        self.run = run
        """Its store holds the tars under `tar_keys`."""
        self.tar_keys, self.tar_sizes_bytes, self.counts = tar_keys, tar_sizes_bytes, counts
        """One each for every shard; of `counts`, None is not known yet."""
        self.classes: list[str] = []
        self.digest: str | None = None
        """SHA-256 of the manifest; None where there is none."""
        self._columns: Lru[Columns] = Lru(_COLUMNS_HELD_BYTES)
        self._labels: Integers | None = None

    @property
    def shards(self) -> int:
        return len(self.tar_keys)

    def columns(self, shard: int) -> Columns:
        """The samples of a shard, of which few shards' are held. Raises `BadInput` where there is none of that number, or its
        index or tar is damaged."""
        if not 0 <= shard < self.shards:
            raise BadInput(f"{self.name} has no shard {shard}; it has {self.shards}")
        found = self._columns.get(shard)
        if found is None:
            found = self._read_columns(shard)
            ends = found.offsets + found.sizes_bytes
            if (found.offsets < 0).any() or (found.sizes_bytes < 0).any() or (ends > self.tar_sizes_bytes[shard]).any():
                raise BadInput(f"{self.locate(shard)}: its index points outside of it; index or make the shard again")
            self._columns.put(shard, found, _COLUMN_BYTES * len(found))
        return found

    @abstractmethod
    def _read_columns(self, shard: int) -> Columns: ...

    def labels(self) -> Integers:
        """Of all samples whose shards are known, from the indexes; read once. Raises as `columns` does."""
        known = self.known
        if self._labels is None or len(self._labels) < sum(known):
            with ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
                found = list(pool.map(lambda shard: self.columns(shard).labels.astype(np.int32), range(len(known))))
            self._labels = np.concatenate([np.empty(0, np.int32), *found]).astype(np.int32)
        return self._labels

    @property
    def known(self) -> list[int]:
        """Samples of each shard, as far as they are known from the first shard on."""
        known: list[int] = []
        for count in self.counts:
            if count is None:
                break
            known.append(count)
        return known

    def count(self, shard: int) -> int:
        """Samples of a shard. Raises as `columns` does."""
        known = self.counts[shard] if 0 <= shard < self.shards else None
        return len(self.columns(shard)) if known is None else known

    def locate(self, shard: int) -> str:
        """The tar as a user would find it."""
        return self.run.locate(self.tar_keys[shard])


class IndexedSource(Source):
    """A split of a set with manifest and indexes."""

    def __init__(self, name: str, folder: ShardFolder, split: Split) -> None:
        keys = [folder.key(key) for key in split.tar_keys]
        super().__init__(name, folder.run, keys, split.tar_sizes_bytes, list(split.shard_images))
        self.classes, self.digest = folder.shards.classes, folder.digest
        self.split = split
        self._folder = folder

    def _read_columns(self, shard: int) -> Columns:
        index = self._folder.index(self.split.shard(shard))
        if len(index.keys) != self.counts[shard]:
            raise BadInput(
                f"{self.locate(shard)}: its index has {len(index.keys)} samples, its manifest {self.counts[shard]}; "
                "make the set again"
            )
        return Columns(
            index.keys,
            np.array(index.image_offsets, np.int64),
            np.array(index.image_sizes_bytes, np.int64),
            np.array(index.image_crc32s, np.int64),
            np.array(index.labels, np.int64),
            index.texts,
        )


class PlainSource(Source):
    """Tars that nobody has indexed. Each is read once, when one of its samples is wanted, by way of a temporary file."""

    def __init__(self, name: str, run: Run, tars: list[ObjectInfo]) -> None:
        super().__init__(name, run, [tar.key for tar in tars], [tar.size_bytes for tar in tars], [None] * len(tars))
        self._one_at_a_time = threading.Lock()

    def columns(self, shard: int) -> Columns:
        with self._one_at_a_time:  # many viewers of one new tar read it once
            found = super().columns(shard)
            self.counts[shard] = len(found)
            return found

    def _read_columns(self, shard: int) -> Columns:
        where, size = self.locate(shard), self.tar_sizes_bytes[shard]
        if size > MOST_TAR_BYTES:
            raise BadInput(f"{where}: {size:,} bytes are too many to read without an index; run `adainf shards index` on it")
        try:
            with tempfile.TemporaryFile() as file:
                with self.run.store.open(self.tar_keys[shard]) as tar:
                    shutil.copyfileobj(tar, file, 2**20)
                file.flush()
                if not file.tell():
                    raise ValueError("it is empty")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                    return _scan(data)
        except NotFound:
            raise BadInput(f"{where} went away; list the folder again") from None
        except ValueError as error:
            raise BadInput(f"{where}: {error}; fetch or make the shard again") from None


def _scan(data: memoryview) -> Columns:
    try:
        found = samples(data)
    except ValueError as error:
        problem = str(error)
    else:
        return Columns(
            [sample.key for sample in found],
            np.array([sample.image.offset for sample in found], np.int64),
            np.array([sample.image.size for sample in found], np.int64),
            np.array([zlib.crc32(data[s.image.offset : s.image.offset + s.image.size]) for s in found], np.int64),
            np.array([-1 if sample.label is None else sample.label for sample in found], np.int64),
            [sample.text for sample in found],
        )
    raise ValueError(problem)  # anew: the first error's traceback holds views of the map, which then could not be closed
