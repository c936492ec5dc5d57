"""What lies at a URI: a run, a set of shards, or a folder of tars that nobody has indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adainf.browse.sources import IndexedSource, PlainSource, Source
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.permutation import Integers, shard_of
from adainf.sources.tars import find_tars
from adainf.storage import open_store

SETS = ("real", "generated")
"""The artifacts of a run that are sets of shards, or whose folder holds several."""
SPLITS = ("train", "validation", "test")


class Place(NamedTuple):
    """One sample: its number within a shard of a source."""

    shard: int
    number: int


class Catalog:
    """The sources at a URI, by name: ``real/train``, ``generated/train`` (``generated/NAME/train``) of a run, ``train`` of a
    set, ``tars`` of a folder."""

    def __init__(self, uri: str) -> None:
        """Raises `BadInput` where there is nothing to look at."""
        self.uri = uri.rstrip("/") or uri
        self.run = Run(open_store(uri))
        self.is_run = False
        self.sources: dict[str, Source] = {}
        self.refresh()
        if not self.sources and not self.is_run:
            keys = set(find_tars(uri, "give a run, a set of shards, or a folder of .tar files")[1])
            tars = [info for info in self.run.store.list() if info.key in keys]
            self.sources = {"tars": PlainSource("tars", self.run, tars)}

    def refresh(self) -> None:
        """Look again for sets that a run did not have before."""
        for name in (one for folder in SETS for one in self.run.claimed(folder)):
            self.is_run = True  # if only at work
            if (manifest := self.run.find(name)) is not None:
                self._add(ShardFolder.of(self.run, name, manifest), f"{name}/")
        if not self.is_run and not self.sources and self.run.store.head("manifest.json") is not None:
            self._add(ShardFolder.open(self.uri), "")

    def _add(self, folder: ShardFolder, prefix: str) -> None:
        names = sorted(folder.shards.splits, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
        for name in names:
            held = self.sources.get(prefix + name)
            if folder.shards.splits[name].images and (held is None or held.digest != folder.digest):
                self.sources[prefix + name] = IndexedSource(prefix + name, folder, folder.shards.splits[name])

    def source(self, name: str | None) -> Source:
        """The source of that name, the first without one. Raises `BadInput` where there is none."""
        if not self.sources:
            raise BadInput(f"{self.uri} holds no images yet")
        found = self.sources.get(name) if name else next(iter(self.sources.values()))
        if found is None:
            raise BadInput(f"{self.uri} has no source {name!r}; it has {', '.join(self.sources)}")
        return found


class Page(NamedTuple):
    """Some samples of a selection."""

    places: list[Place]
    total: int
    """Samples of the selection, as far as the shards are known."""
    complete: bool
    """Whether all shards are known; of a folder without indexes, they become so in their order."""


def page(source: Source, first: int, count: int, shards: Sequence[int] | None = None, label: int | None = None) -> Page:
    """Samples `first` to `first` + `count` of those in `shards`, in that order (all where None), that have `label` (any where
    None).

    Of all shards, the next one is read where the wanted samples begin after the last that is known. Raises `BadInput`.
    """
    if shards is None:
        while first + count > sum(source.known) and len(source.known) < source.shards:
            source.columns(len(source.known))
        shards = range(len(source.known))
        complete = len(shards) == source.shards
    else:
        complete = True
    starts = _starts([source.count(shard) for shard in shards])
    if label is None:
        total = int(starts[-1])
        chosen = np.arange(min(first, total), min(first + count, total))
    else:
        matching = np.flatnonzero(_labels(source, shards) == label)
        total, chosen = len(matching), matching[first : first + count]
    held = shard_of(starts, chosen)
    places = [Place(shards[at], int(number)) for at, number in zip(held, chosen - starts[held], strict=True)]
    return Page(places, total, complete)


def page_of(
    source: Source, rows: Integers, first: int, count: int, shards: Sequence[int] | None = None, label: int | None = None
) -> Page:
    """As `page`, of the samples with these numbers in a source whose shards are all known, in that order."""
    if shards is not None:
        for shard in shards:
            source.count(shard)  # is there one
        ranks = np.full(source.shards, -1)
        ranks[list(shards)] = np.arange(len(shards))
        ranks = ranks[shard_of(_starts(source.known), rows)]
        rows = rows[np.argsort(ranks, kind="stable")][np.count_nonzero(ranks < 0) :]
    if label is not None:
        rows = rows[source.labels()[rows] == label]
    return Page(places(source, rows[first : first + count]), len(rows), True)


def places(source: Source, rows: Integers) -> list[Place]:
    """Where the samples with these numbers in the source are."""
    starts = _starts(source.known)
    shards = shard_of(starts, rows)
    return [Place(shard, number) for shard, number in zip(shards.tolist(), (rows - starts[shards]).tolist(), strict=True)]


def row_of(source: Source, place: Place) -> int:
    """The number of a sample in its source."""
    return sum(source.known[: place.shard]) + place.number


def _starts(counts: Sequence[int]) -> Integers:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _labels(source: Source, shards: Sequence[int]) -> Integers:
    """Of the samples of these shards. Those of one shard need no other's index."""
    if len(shards) == 1:
        return source.columns(shards[0]).labels
    labels = np.split(source.labels(), np.cumsum(source.known)[:-1])
    return np.concatenate([np.empty(0, np.int64), *[labels[shard] for shard in shards]])


def find(source: Source, wanted: str) -> Place:
    """The sample of that key, or else of that number in the source. Raises `BadInput` where there is none.

    All indexes are looked through for a key, from the first on.
    """
    for shard in range(source.shards):
        keys = source.columns(shard).keys
        if wanted in keys:
            return Place(shard, keys.index(wanted))
    if wanted.isdecimal():
        found = page(source, int(wanted), 1).places
        if found:
            return found[0]
    raise BadInput(
        f"{source.name} of {source.run.uri} has no sample {wanted!r}; give a key, or a number below {sum(source.known)}"
    )
