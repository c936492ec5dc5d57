"""The images of planned batches: waits for the shards that hold them, and tells the filler what is next."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import numpy as np

from adainf.errors import BadInput
from adainf.shards.format.png import Pixels
from adainf.shards.loader.arrays import Integers, distinct, owners
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.in_memory import WholeSplit
from adainf.shards.loader.mixture import MixtureSchedule
from adainf.shards.loader.prefetcher import Filler, Job
from adainf.shards.loader.range_reads import ColdReader
from adainf.shards.loader.windowed import WindowedSplit

Split = WholeSplit | WindowedSplit

_LOOK_AHEAD = 16_384
"""Positions that are planned together to see which shards come first."""
_LOOKS = 64
COLD_SHARE = 1000
"""One image of so many may be read alone while shards are fetched: reads cost a hundred times what filling costs an image."""
COLD_FIRST = 200
"""A first batch may be read alone where the sources hold so many times its images: else filling is as fast."""


class Taken(NamedTuple):
    """See `Batch`."""

    images: Pixels | list[Pixels]
    indices: Integers
    labels: Integers


class Supply:
    """What stands between a plan and its pixels. Used by one thread at a time."""

    def __init__(self, splits: list[Split], schedule: MixtureSchedule, cache: Cache) -> None:
        self.splits, self._schedule, self._cache = splits, schedule, cache
        self._filler = Filler(list(splits), cache.fetches)
        sizes = {split.size for split in splits}
        self.size = sizes.pop() if len(sizes) == 1 else None
        """(height, width) of every image; None where they differ."""
        self._cold = [ColdReader(split) for split in splits if isinstance(split, WholeSplit)]
        self._cold_left: int | None = None
        self._announced_to = [-1] * len(splits)

    def take(self, position: int, sources: Integers, indices: Integers, empty: Pixels | None) -> Taken:
        """The images planned for `position` and those after it, in `empty` where that has room for them.

        Blocks until their shards are there. Raises `BadInput` for damage, as the policy says.
        """
        rows = [np.flatnonzero(sources == number) for number in range(len(self.splits))]
        images: Pixels | list[Pixels] = [np.empty((0, 0, 3), np.uint8)] * len(indices) if empty is None else empty
        taken = Taken(images, indices.copy(), np.empty_like(indices))
        rows = self._read_cold(rows, taken)
        self._announce(position)
        self._wait(rows, indices)
        for split, mine in zip(self.splits, rows, strict=True):
            if len(mine):
                self._take(split, mine, taken)
        return taken

    def wait_for_all(self, position: int) -> None:
        """Fill every shard of the splits that are held as a whole."""
        self._announce(position)
        jobs = [Job(n, shard) for n, split in enumerate(self.splits) for shard in range(len(split.split))]
        self._filler.wait([job for job in jobs if isinstance(self.splits[job.split], WholeSplit)])

    def restart(self) -> None:
        """The next batch is not the one after the last."""
        self._announced_to = [-1] * len(self.splits)

    def whole_splits(self) -> list[WholeSplit]:
        """Raises `BadInput` where a split has only a window of its images."""
        whole = [split for split in self.splits if isinstance(split, WholeSplit)]
        if len(whole) < len(self.splits):
            raise BadInput("a stream with window_shards never holds all its images; leave it out to have them all at hand")
        return whole

    def stop(self) -> None:
        """Tell the filling threads to end, and whoever waits for them."""
        self._filler.stop()

    def close(self) -> None:
        """Let go of the cache, unless a thread that hangs on the network still needs it."""
        if self._filler.ended():
            for split in self.splits:
                split.close()
            self._cache.close()

    def _take(self, split: Split, rows: Integers, taken: Taken) -> None:
        actual = split.stand_ins(taken.indices[rows])
        taken.indices[rows] = actual
        if isinstance(taken.images, list):
            assert isinstance(split, WindowedSplit)
            images, taken.labels[rows] = split.take_each(actual)
            for row, image in zip(rows.tolist(), images, strict=True):
                taken.images[row] = image
        elif len(rows) == len(taken.images):
            taken.labels[rows] = split.take(actual, taken.images)
        else:
            part = np.empty((len(rows), *taken.images.shape[1:]), np.uint8)
            taken.labels[rows] = split.take(actual, part)
            taken.images[rows] = part

    def _wait(self, rows: list[Integers], indices: Integers) -> None:
        while jobs := [
            Job(number, shard)
            for number, (split, mine) in enumerate(zip(self.splits, rows, strict=True))
            for shard in (split.unfilled(indices[mine]).tolist() if len(mine) else ())
        ]:
            self._filler.wait(jobs)

    def _announce(self, position: int) -> None:
        """Tell the filler what to fill, where that has changed."""
        drawn = self._schedule.drawn(position) if self._schedule.windows else [0] * len(self.splits)
        if all(at < end for at, end in zip(drawn, self._announced_to, strict=True)):
            return
        jobs: list[Job] = []
        if self._schedule.windows is None:
            self._announced_to = [1] * len(self.splits)  # whole splits are announced once
            jobs = self._in_order_of_need(position)
        for number, split in enumerate(self.splits):
            if isinstance(split, WindowedSplit):
                window = self._schedule.window(number, drawn[number])
                following = self._schedule.window(number, window.end)
                self._announced_to[number] = window.end
                shards = np.concatenate([window.shards, following.shards])
                split.let_go(shards)
                jobs += [Job(number, shard) for shard in shards.tolist()]
        self._filler.want(jobs)

    def _in_order_of_need(self, position: int) -> list[Job]:
        """All shards, those first that the schedule comes to first; in between from a random one on, so that the nodes of a
        job do not all ask for the same object."""
        jobs: dict[Job, None] = {}
        total = sum(len(split.split) for split in self.splits)
        for look in range(_LOOKS):
            positions = position + look * _LOOK_AHEAD + np.arange(_LOOK_AHEAD)
            sources, indices = self._schedule.at(positions)
            new = [
                Job(number, shard)
                for number, split in enumerate(self.splits)
                for shard in distinct(owners(split.starts, indices[sources == number])).tolist()
                if Job(number, shard) not in jobs
            ]
            first = secrets.randbelow(len(new)) if new else 0
            jobs |= dict.fromkeys(new[first:] + new[:first])
            if len(jobs) == total:
                break
        rest = [Job(number, shard) for number, split in enumerate(self.splits) for shard in range(len(split.split))]
        return list(jobs | dict.fromkeys(rest))

    def _read_cold(self, rows: list[Integers], taken: Taken) -> list[Integers]:
        """Read single images of shards that are not there, as long as that is worth it; the rows that are left."""
        if not self._cold or isinstance(taken.images, list):
            return rows
        filled = [reader.split.are_filled(taken.indices[mine]) for reader, mine in zip(self._cold, rows, strict=True)]
        missing = [mine[~there] for mine, there in zip(rows, filled, strict=True)]
        count = sum(map(len, missing))
        if self._cold_left is None:  # the first batch
            images = sum(map(len, self.splits))
            self._cold_left = max(images // COLD_SHARE, len(taken.indices) if len(taken.indices) * COLD_FIRST < images else 0)
        if not 0 < count <= self._cold_left:
            self._cold = []  # with the indexes that they hold
            return rows
        self._cold_left -= count
        left = []
        for reader, mine, there, cold in zip(self._cold, rows, filled, missing, strict=True):
            part = np.empty((len(cold), *taken.images.shape[1:]), np.uint8)
            labels = reader.take(taken.indices[cold], part) if len(cold) else None
            if labels is None:
                left.append(mine)
            else:
                taken.images[cold], taken.labels[cold] = part, labels
                left.append(mine[there])
        return left
