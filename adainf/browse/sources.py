"""Sources of the browser: samples in tars, located by the index of each tar, or by scanning a tar without index."""

from __future__ import annotations

import threading
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from adainf.browse.lru import LruCache
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split
from adainf.shards.format.samples import SampleScan, number_of
from adainf.shards.format.scan import Forward
from adainf.shards.loader.permutation import Integers
from adainf.sources.tar_rules import Rules
from adainf.storage import NotFound, ObjectInfo

MAX_IMAGE_BYTES = 64 * 2**20
MAX_TAR_BYTES = 2 * 2**30
"""Maximum size of a tar without index, which has to be read completely."""
UNREADABLE = -2
"""The label of the first sample of a shard whose labels cannot be read: every filter by label selects it, so it is seen."""
_SAMPLE_BYTES = 200
"""Approximate memory of a sample in `Columns`: four integers and one or two Python strings."""
_COLUMNS_CACHE_BYTES = 40_000_000


class Columns(NamedTuple):
    """The samples of one shard, in order, as columns. Offsets and sizes are those of the encoded images, in bytes."""

    keys: list[str]
    offsets: Integers
    sizes_bytes: Integers
    crc32s: Integers
    labels: Integers
    """-1: no label."""
    texts: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.keys)


class BrowseSource(ABC):
    """Samples that are shown together: a split of a shard set, or a folder of tars. Thread-safe."""

    def __init__(self, name: str, run: Run, tar_keys: list[str], tar_sizes_bytes: list[int], counts: list[int | None]) -> None:
        self.name = name
        self.run = run
        """The run whose store contains the tars."""
        self.tar_keys, self.tar_sizes_bytes, self.counts = tar_keys, tar_sizes_bytes, counts
        """One per shard; a count is None until it is known."""
        self.classes: list[str] = []
        self.labelled = False
        """Whether any known sample has a label."""
        self.digest: str | None = None
        """SHA-256 of the manifest; None without a manifest."""
        self.problems: dict[int, str] = {}
        """Why tars without index cannot be read. Each counts as one sample, which is shown as unreadable."""
        self._columns: LruCache[Columns] = LruCache(_COLUMNS_CACHE_BYTES)
        self._labels: Integers | None = None

    @property
    def shards(self) -> int:
        return len(self.tar_keys)

    def columns(self, shard: int) -> Columns:
        """The samples of a shard (cached). Raises `BadInput` for a missing shard, or a corrupt index or tar."""
        if not 0 <= shard < self.shards:
            raise BadInput(f"{self.name} has no shard {shard}; choose one below {self.shards}")
        found = self._columns.get(shard)
        if found is None:
            found = self._read_columns(shard)
            ends = found.offsets + found.sizes_bytes
            if (found.offsets < 0).any() or (found.sizes_bytes < 0).any() or (ends > self.tar_sizes_bytes[shard]).any():
                raise BadInput(f"{self.locate(shard)}: its index points outside of the tar; index or write the shard again")
            self._columns.put(shard, found, _SAMPLE_BYTES * len(found))
        return found

    @abstractmethod
    def _read_columns(self, shard: int) -> Columns: ...

    def labels(self) -> Integers:
        """The labels of all samples of known shards, read once from the indexes; see `UNREADABLE`."""
        known = self.known
        if self._labels is None or len(self._labels) < sum(known):
            with ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
                found = list(pool.map(self._labels_of, known, range(len(known))))
            self._labels = np.concatenate([np.empty(0, np.int32), *found]).astype(np.int32)
        return self._labels

    def _labels_of(self, count: int, shard: int) -> Integers:
        try:
            return self.columns(shard).labels.astype(np.int32)
        except BadInput:
            return np.array([UNREADABLE, *[-1] * (count - 1)][:count], np.int32)

    def settle(self, shard: int, wait_s: float | None = None) -> bool:
        """Whether the number of samples of a shard is known, after reading its tar for at most `wait_s` seconds."""
        return True

    @property
    def reading(self) -> str | None:
        """The tar that is being read, and how far; None if there is none."""
        return None

    @property
    def known(self) -> list[int]:
        """Number of samples by shard, up to the first shard whose number is not known yet."""
        known: list[int] = []
        for count in self.counts:
            if count is None:
                break
            known.append(count)
        return known

    def count(self, shard: int) -> int:
        """Number of samples of a shard. Raises as `columns` does for a tar without index."""
        if shard in self.problems:
            raise BadInput(self.problems[shard])
        known = self.counts[shard] if 0 <= shard < self.shards else None
        return len(self.columns(shard)) if known is None else known

    def locate(self, shard: int) -> str:
        """The URI of a tar."""
        return self.run.locate(self.tar_keys[shard])


class IndexedSource(BrowseSource):
    """A split of a shard set, with manifest and indexes."""

    def __init__(self, name: str, folder: ShardFolder, split: Split) -> None:
        keys = [folder.key(key) for key in split.tar_keys]
        super().__init__(name, folder.run, keys, split.tar_sizes_bytes, list(split.shard_images))
        self.classes, self.digest = folder.shards.classes, folder.digest
        self.labelled = split.labelled or bool(self.classes)
        self.split = split
        self._folder = folder

    def _read_columns(self, shard: int) -> Columns:
        index = self._folder.index(self.split.shard(shard))
        if len(index.keys) != self.counts[shard]:
            raise BadInput(
                f"{self.locate(shard)}: its index has {len(index.keys)} samples, its manifest {self.counts[shard]}; "
                "write the shard set again"
            )
        return Columns(
            index.keys,
            np.array(index.image_offsets, np.int64),
            np.array(index.image_sizes_bytes, np.int64),
            np.array(index.image_crc32s, np.int64),
            np.array(index.labels, np.int64),
            index.texts,
        )


class UnindexedSource(BrowseSource):
    """Tars without indexes. Each is read once, as a stream, when one of its samples is first requested.

    A sample with a problem is shown without what cannot be read: its label, its caption, all images but the first.
    """

    def __init__(self, name: str, run: Run, tars: list[ObjectInfo]) -> None:
        super().__init__(name, run, [tar.key for tar in tars], [tar.size_bytes for tar in tars], [None] * len(tars))
        self._scan_lock, self._start_lock = threading.Lock(), threading.Lock()
        self._scans: dict[int, Future[None]] = {}
        self._position: tuple[int, int] | None = None

    def columns(self, shard: int) -> Columns:
        with self._scan_lock:  # concurrent requests for one tar read it once
            if shard in self.problems:
                raise BadInput(self.problems[shard])
            found = super().columns(shard)
            self.counts[shard] = len(found)
            self.labelled |= bool((found.labels >= 0).any())
            return found

    def settle(self, shard: int, wait_s: float | None = None) -> bool:
        if not 0 <= shard < self.shards or self.counts[shard] is not None:
            return True
        with self._start_lock:
            scan = self._scans.get(shard)
            if scan is None:
                scan = self._scans[shard] = Future()
                threading.Thread(target=self._scan, args=(shard, scan), daemon=True).start()
        if not wait([scan], wait_s).done:
            return False
        self._scans.pop(shard, None)
        scan.result()
        return True

    def _scan(self, shard: int, scan: Future[None]) -> None:
        try:
            self.columns(shard)
        except BadInput as error:
            self.problems[shard] = str(error)
            self.counts[shard] = 1
        except BaseException as error:  # the store does not respond, say: the next request tries again
            scan.set_exception(error)
            return
        scan.set_result(None)

    @property
    def reading(self) -> str | None:
        position = self._position
        if position is None:
            return None
        shard, done = position
        return f"reading {PurePosixPath(self.tar_keys[shard]).name}, {100 * done // max(1, self.tar_sizes_bytes[shard])} %"

    def _read_columns(self, shard: int) -> Columns:
        where, size = self.locate(shard), self.tar_sizes_bytes[shard]
        if size > MAX_TAR_BYTES:
            raise BadInput(
                f"{where}: too large to read without an index ({size:,} bytes); run `adainf shards index` on its folder"
            )
        keys: list[str] = []
        texts: list[str | None] = []
        numbers = array("q")
        self._position = shard, 0
        try:
            with self.run.store.open(self.tar_keys[shard]) as file:
                tar = Forward(file, size)
                for sample, data, _ in SampleScan(tar, read_images=True, max_image_bytes=MAX_IMAGE_BYTES):
                    if sample is None:  # without an image there is nothing to show
                        continue
                    self._position = shard, sample.image.offset
                    keys.append(sample.key)
                    texts.append(sample.text)
                    numbers.extend((sample.image.offset, sample.image.size, zlib.crc32(data), number_of(sample)))
                tar.finish()
        except NotFound:
            raise BadInput(f"{where} has been deleted; reload the page or run the command again") from None
        except ValueError as error:
            raise BadInput(f"{where}: {error}; {Rules().fix(error)}") from None
        finally:
            self._position = None
        offsets, sizes, crc32s, labels = np.array(numbers, np.int64).reshape(-1, 4).T
        return Columns(keys, offsets, sizes, crc32s, labels, texts)
