"""The sources at a URI: those of a run, of a shard set, or of a folder of tars without indexes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.browse.sources import UNREADABLE, BrowseSource, IndexedSource, UnindexedSource
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.permutation import Integers, shard_of
from adainf.sources.tar_files import check_uri, find_tars, is_tar_uri
from adainf.storage import open_store

SETS = ("real", "generated", "positives")
"""The artifacts of a run that are shard sets, or folders of several shard sets."""
_FIX = "pass a run, a shard set, or tars (a folder, one .tar, or a pattern); `adainf shards import` makes a set of other data"
SPLITS = ("train", "validation", "test")


class SampleRef(NamedTuple):
    """A reference to one sample of a source: its shard, and its number within the shard."""

    shard: int
    number: int


class Catalog:
    """The sources at a URI, by name: ``real/train``, ``generated/train`` (``generated/NAME/train``) of a run, ``train`` of a
    shard set, ``tars`` of a folder."""

    def __init__(self, uri: str) -> None:
        """`uri` may also name one tar, or be a pattern of tars. Raises `BadInput` if there is nothing to show."""
        self.uri = uri.rstrip("/") or uri
        self.is_run = False
        self.sources: dict[str, BrowseSource] = {}
        self.is_folder = (uri.startswith("s3://") and not is_tar_uri(uri)) or Path(uri).expanduser().is_dir()
        if self.is_folder:
            check_uri(uri, _FIX)
            self.run = Run(open_store(uri))
            self.refresh()
        if not self.sources and not self.is_run:
            store, tars, _ = find_tars(uri, _FIX)
            self.run = Run(store)
            self.sources = {"tars": UnindexedSource("tars", self.run, tars)}

    def refresh(self) -> None:
        """Add the shard sets that a run has written or replaced since the last call."""
        if not self.is_folder:
            return
        for name in (one for folder in SETS for one in self.run.claimed(folder)):
            self.is_run = True  # even if nothing is committed yet
            if (manifest := self.run.find(name)) is not None:
                self._add(ShardFolder.of(self.run, name, manifest), f"{name}/")
        if not self.is_run and not self.sources and self.run.store.head("manifest.json") is not None:
            self._add(ShardFolder.open(self.uri), "")

    def _add(self, folder: ShardFolder, prefix: str) -> None:
        names = sorted(folder.shards.splits, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
        for name in names:
            known = self.sources.get(prefix + name)
            if folder.shards.splits[name].images and (known is None or known.digest != folder.digest):
                self.sources[prefix + name] = IndexedSource(prefix + name, folder, folder.shards.splits[name])

    def source(self, name: str | None) -> BrowseSource:
        """The source with this name, or the first one for None. Raises `BadInput` if there is none."""
        if not self.sources:
            raise BadInput(f"{self.uri} contains no images yet; wait for the first finished stage")
        found = self.sources.get(name) if name else next(iter(self.sources.values()))
        if found is None:
            raise BadInput(f"{self.uri} has no source {name!r}; choose one of {', '.join(self.sources)}")
        return found


class Page(NamedTuple):
    """One page of the samples of a selection."""

    samples: list[SampleRef]
    total: int
    """Number of samples of the selection, as far as the shards are known."""
    complete: bool
    """Whether all shards are known. Tars without indexes become known one by one, in order."""
    reading: str | None = None
    """The tar that is being read for more of the requested samples; None if they are complete."""


def page(
    source: BrowseSource,
    first: int,
    count: int,
    shards: Sequence[int] | None = None,
    label: int | None = None,
    wait_s: float | None = None,
) -> Page:
    """Samples `first` to `first` + `count` of `shards` in that order (None: all) with `label` (None: any).

    If `shards` is None, reads further tars until the requested samples are known, or for about `wait_s` seconds. A shard that
    cannot be read counts as one sample, or as those that its manifest lists. Raises `BadInput` if `shards` names such a tar.
    """
    deadline_s = None if wait_s is None else time.monotonic() + wait_s

    def settled(shard: int) -> bool:
        return source.settle(shard, None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))

    reading = None
    if shards is None:
        while (shard := len(source.known)) < source.shards and _found(source, label) < first + count:
            if not settled(shard):
                reading = source.reading or "reading"
                break
        known = source.known
        shards, complete = range(len(known)), len(known) == source.shards
    else:
        if not all(settled(shard) for shard in shards):
            return Page([], 0, False, source.reading or "reading")
        known, complete = [source.count(shard) for shard in shards], True
    starts = _starts(known)
    if label is None:
        total = int(starts[-1])
        selected = np.arange(min(first, total), min(first + count, total))
    else:
        matching = np.flatnonzero(_matches(_labels(source, shards), label))
        total, selected = len(matching), matching[first : first + count]
    positions = shard_of(starts, selected)
    numbers = selected - starts[positions]
    samples = [SampleRef(shards[position], int(number)) for position, number in zip(positions, numbers, strict=True)]
    return Page(samples, total, complete, reading)


def settle(source: BrowseSource, wait_s: float | None = None) -> str | None:
    """Read all tars whose samples are not known, for about `wait_s` seconds. Returns what is still being read."""
    deadline_s = None if wait_s is None else time.monotonic() + wait_s
    while (shard := len(source.known)) < source.shards:
        if not source.settle(shard, None if deadline_s is None else max(0.0, deadline_s - time.monotonic())):
            return source.reading or "reading"
    return None


def _found(source: BrowseSource, label: int | None) -> int:
    """Number of known samples with this label (None: any)."""
    return sum(source.known) if label is None else int(np.count_nonzero(_matches(source.labels(), label)))


def _matches(labels: Integers, label: int) -> NDArray[np.bool_]:
    return (labels == label) | (labels == UNREADABLE)


def page_of_rows(
    source: BrowseSource, rows: Integers, first: int, count: int, shards: Sequence[int] | None = None, label: int | None = None
) -> Page:
    """As `page`, for the samples with these row numbers, in that order, of a source whose shards are all known."""
    if shards is not None:
        for shard in shards:
            source.count(shard)  # raises if there is no such shard
        ranks = np.full(source.shards, -1)
        ranks[list(shards)] = np.arange(len(shards))
        ranks = ranks[shard_of(_starts(source.known), rows)]
        rows = rows[np.argsort(ranks, kind="stable")][np.count_nonzero(ranks < 0) :]
    if label is not None:
        rows = rows[_matches(source.labels()[rows], label)]
    return Page(samples_at(source, rows[first : first + count]), len(rows), True)


def samples_at(source: BrowseSource, rows: Integers) -> list[SampleRef]:
    """The samples with these row numbers in the source."""
    starts = _starts(source.known)
    shards = shard_of(starts, rows)
    return [SampleRef(shard, number) for shard, number in zip(shards.tolist(), (rows - starts[shards]).tolist(), strict=True)]


def row_of(source: BrowseSource, sample: SampleRef) -> int:
    """The row number of a sample in its source."""
    return sum(source.known[: sample.shard]) + sample.number


def _starts(counts: Sequence[int]) -> Integers:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _labels(source: BrowseSource, shards: Sequence[int]) -> Integers:
    """The labels of the samples of these shards. For a single shard, reads only the index of that shard."""
    if len(shards) == 1:
        return source.columns(shards[0]).labels
    labels = np.split(source.labels(), np.cumsum(source.known)[:-1])
    return np.concatenate([np.empty(0, np.int64), *[labels[shard] for shard in shards]])


def find(source: BrowseSource, key_or_row: str) -> SampleRef:
    """The sample with this key, or else with this row number. Raises `BadInput` if there is none.

    Searches the indexes for the key in order, from the first one. Shards that cannot be read are skipped.
    """
    problem = ""
    for shard in range(source.shards):
        source.settle(shard)
        try:
            keys = source.columns(shard).keys
        except BadInput as error:
            problem = problem or f" (not searched: {error})"
            continue
        if key_or_row in keys:
            return SampleRef(shard, keys.index(key_or_row))
    if key_or_row.isdecimal():
        found = page(source, int(key_or_row), 1).samples
        if found:
            return found[0]
    below = sum(source.known)
    raise BadInput(
        f"{source.name} of {source.run.uri} has no sample {key_or_row!r}; pass a key, or an index below {below}{problem}"
    )
