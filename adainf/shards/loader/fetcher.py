"""The fetcher: returns the images of planned batches, waits for their shards, and schedules the prefetcher."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from adainf.errors import BadInput
from adainf.shards.format.png import Pixels
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.companions import CompanionFetcher
from adainf.shards.loader.complete import CompleteSplit, Draw
from adainf.shards.loader.encoded import EncodedSplit
from adainf.shards.loader.mixture import MixtureSchedule
from adainf.shards.loader.permutation import Integers, shard_of, unique
from adainf.shards.loader.prefetcher import FetchTask, Prefetcher
from adainf.shards.loader.range_reads import RangeReader
from adainf.shards.loader.windowed import WindowedSplit

Split = CompleteSplit | WindowedSplit

_LOOKAHEAD = 16_384
"""Positions evaluated together to find the shards that are needed first."""
_MAX_LOOKAHEADS = 64
RANGE_READ_SHARE = 1000
"""One image of this many may be fetched by a range read: such a read costs a hundred times an image of a prefetched shard."""
PHOTO_SHARE = 8
"""One of this many where a split is cached encoded: a photo is so large that a read of it costs a few times its decoding."""
FIRST_BATCH_SHARE = 200
"""The first batch may use range reads where the sources hold this many times its images: else prefetching is as fast."""


DrawOf = Callable[[int], Draw]
"""Source → how the crops of its images are drawn."""


class Fetched(NamedTuple):
    """See `Batch`."""

    images: list[Pixels]
    """One array b x H x W x 3 per view, or, where images differ in size, one per image."""
    indices: Integers
    labels: Integers


class Fetcher:
    """Fetches the pixels of a plan. Not thread-safe."""

    def __init__(self, splits: list[Split], mixture: MixtureSchedule, cache: Cache) -> None:
        self.splits, self._mixture, self._cache = splits, mixture, cache
        self._prefetcher = Prefetcher(list(splits), cache.fetches)
        self.companions: CompanionFetcher | None = None
        sizes = {split.size for split in splits}
        self.size = sizes.pop() if len(sizes) == 1 else None
        """(height, width) of every image; None where they differ."""
        self._range_readers = [RangeReader(split) for split in splits if isinstance(split, CompleteSplit)]
        self._range_reads_left: int | None = None
        self._scheduled_to = [-1] * len(splits)

    def fetch(
        self, position: int, sources: Integers, indices: Integers, outs: Sequence[Pixels], draw_of: DrawOf | None = None
    ) -> Fetched:
        """The images planned from `position` on, in `outs` where all have one size: one array, or one per view of `draw_of`.

        Blocks until their shards are ready. Raises `BadInput` for corruption, by the policy.
        """
        rows = [np.flatnonzero(sources == number) for number in range(len(self.splits))]
        images = list(outs) or [np.empty((0, 0, 3), np.uint8)] * len(indices)
        fetched = Fetched(images, indices.copy(), np.empty_like(indices))
        draws = [None if draw_of is None else draw_of(number) for number in range(len(self.splits))]
        rows = self._read_ranges(rows, fetched, draws) if outs else rows
        self._schedule(position)
        self._wait(rows, indices)
        for split, own_rows, draw in zip(self.splits, rows, draws, strict=True):
            if len(own_rows):
                self._copy(split, own_rows, fetched, draw)
        return fetched

    @property
    def crops(self) -> bool:
        """Whether crops can be drawn: all images are cached encoded."""
        return all(isinstance(split, EncodedSplit) for split in self.splits)

    def wait_for_all(self, position: int) -> None:
        """Block until every shard of the in-memory splits is ready."""
        self._schedule(position)
        self._prefetcher.wait([task for task in self._all_tasks() if isinstance(self.splits[task.split], CompleteSplit)])
        if self.companions:
            self.companions.wait_for_all()

    def reset(self) -> None:
        """Schedule again at the next batch, which does not follow the last one."""
        self._scheduled_to = [-1] * len(self.splits)
        if self.companions:
            self.companions.reset()

    def complete_splits(self) -> list[CompleteSplit]:
        """All splits. Raises `BadInput` where one has only a window of its images."""
        found = [split for split in self.splits if isinstance(split, CompleteSplit)]
        if len(found) < len(self.splits):
            raise BadInput("a stream with window_shards never holds all its images; leave window_shards out to hold them all")
        return found

    def change(self, mixture: MixtureSchedule, added: list[Split]) -> None:
        """Fetch by another mixture, with further splits, from the next batch on."""
        for split in added:
            self.splits.append(split)
            self._prefetcher.add(split)
            if self._range_readers and isinstance(split, CompleteSplit):
                self._range_readers.append(RangeReader(split))
        self._mixture = mixture
        self.reset()

    def stop(self) -> None:
        """Stop the prefetch threads, and raise `Closed` in a `fetch` that waits for them."""
        self._prefetcher.stop()
        if self.companions:
            self.companions.stop()

    def close(self) -> None:
        """Close the cache, unless a thread that hangs on the network still uses it."""
        if (self.companions is None or self.companions.close()) and self._prefetcher.join():
            for split in self.splits:
                split.close()
            self._cache.close()

    def _copy(self, split: Split, rows: Integers, fetched: Fetched, draw: Draw | None) -> None:
        actual = split.replacements(fetched.indices[rows])
        fetched.indices[rows] = actual
        if self.size is None:
            assert isinstance(split, WindowedSplit)
            images, fetched.labels[rows] = split.take_each(actual)
            for row, image in zip(rows.tolist(), images, strict=True):
                fetched.images[row] = image
            return
        everything = len(rows) == len(fetched.indices)
        outs = [out if everything else np.empty((len(rows), *out.shape[1:]), np.uint8) for out in fetched.images]
        if isinstance(split, WindowedSplit):
            fetched.labels[rows] = split.take(actual, outs[0])
        else:
            fetched.indices[rows], fetched.labels[rows] = split.take(actual, outs, draw)
        for out, part in zip(fetched.images, outs, strict=True):
            if part is not out:
                out[rows] = part

    def _wait(self, rows: list[Integers], indices: Integers) -> None:
        while tasks := [
            FetchTask(number, shard)
            for number, (split, own_rows) in enumerate(zip(self.splits, rows, strict=True))
            for shard in (_missing(split, indices[own_rows]) if len(own_rows) else ())
        ]:
            self._prefetcher.wait(tasks)

    def _schedule(self, position: int) -> None:
        """Schedule the prefetcher, where the shards to prefetch have changed."""
        drawn = self._mixture.drawn(position) if self._mixture.windows else [0] * len(self._mixture.counts)
        if all(at < end for at, end in zip(drawn, self._scheduled_to, strict=False)):
            return
        active = self._mixture.active(position)
        tasks: list[FetchTask] = []
        if self._mixture.windows is None:
            self._scheduled_to = [1] * len(self.splits)  # in-memory splits are scheduled once
            tasks = self._by_first_use(position, active)
        for number, split in enumerate(self.splits):
            if isinstance(split, WindowedSplit):
                if number not in active:
                    self._scheduled_to[number] = sys.maxsize
                    split.retain(np.empty(0, np.int64))
                    continue
                window = self._mixture.window(number, drawn[number])
                following = self._mixture.window(number, window.end)
                self._scheduled_to[number] = window.end
                shards = np.concatenate([window.shards, following.shards])
                split.retain(shards)
                tasks += [FetchTask(number, shard) for shard in shards.tolist()]
        self._prefetcher.schedule(tasks)

    def _by_first_use(self, position: int, active: list[int]) -> list[FetchTask]:
        """All shards, in the order of their first use. Shards first used in the same lookahead start at a random one, so that
        the nodes of a job do not all request the same object."""
        tasks: dict[FetchTask, None] = {}
        wanted = [task for task in self._all_tasks() if task.split in active]
        for lookahead in range(_MAX_LOOKAHEADS):
            positions = position + lookahead * _LOOKAHEAD + np.arange(_LOOKAHEAD)
            sources, indices = self._mixture.at(positions)
            new = [
                FetchTask(number, shard)
                for number, split in enumerate(self.splits)
                for shard in unique(shard_of(split.starts, indices[sources == number])).tolist()
                if FetchTask(number, shard) not in tasks
            ]
            first = secrets.randbelow(len(new)) if new else 0
            tasks |= dict.fromkeys(new[first:] + new[:first])
            if len(tasks) == len(wanted):
                break
        return list(tasks | dict.fromkeys(wanted))

    def _all_tasks(self) -> list[FetchTask]:
        return [FetchTask(number, shard) for number, split in enumerate(self.splits) for shard in range(len(split.split))]

    def _read_ranges(self, rows: list[Integers], fetched: Fetched, draws: list[Draw | None]) -> list[Integers]:
        """Fetch images of missing shards by range reads, within the limits above; the remaining rows."""
        if not self._range_readers:
            return rows
        ready = [
            reader.split.are_ready(fetched.indices[own_rows])
            for reader, own_rows in zip(self._range_readers, rows, strict=True)
        ]
        missing = [own_rows[~there] for own_rows, there in zip(rows, ready, strict=True)]
        count = sum(map(len, missing))
        if self._range_reads_left is None:  # the first batch
            images, batch = sum(map(len, self.splits)), len(fetched.indices)
            share = PHOTO_SHARE if any(isinstance(split, EncodedSplit) for split in self.splits) else RANGE_READ_SHARE
            self._range_reads_left = max(images // share, batch if batch * FIRST_BATCH_SHARE < images else 0)
        if not 0 < count <= self._range_reads_left:
            self._range_readers = []  # frees the indexes that they hold
            return rows
        self._range_reads_left -= count
        left = []
        for reader, own_rows, there, absent, draw in zip(self._range_readers, rows, ready, missing, draws, strict=True):
            labels = reader.take(fetched.indices[absent], absent, fetched.images, draw) if len(absent) else None
            if labels is None:
                left.append(own_rows)
            else:
                fetched.labels[absent] = labels
                left.append(own_rows[there])
        return left


def _missing(split: Split, indices: Integers) -> list[int]:
    """The shards to wait for, which are not evicted until they are mapped."""
    shards = split.missing(indices)
    if isinstance(split, WindowedSplit) and len(shards):
        split.protect(shards)
    numbers: list[int] = shards.tolist()
    return numbers
