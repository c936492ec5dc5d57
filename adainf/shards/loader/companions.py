"""Companions: with an image of one source, a batch carries one candidate of it from a second set (docs/positives.md).

The set holds candidates 0 of all images, then candidates 1, and so on: candidate c of image i of N has index c N + i, and the
shards of each candidate number are aligned with those of the source. Which images have a companion, and which candidate it is,
are functions of (seed, image, pass). All images of a shard use the same candidate number in a pass, so a windowed stream reads
one candidate shard for each shard of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split
from adainf.shards.format.png import Pixels
from adainf.shards.loader.batch import Candidates
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.complete import CompleteSplit
from adainf.shards.loader.mixture import MixtureSchedule, Planned
from adainf.shards.loader.permutation import Integers, mix, shard_of, unique
from adainf.shards.loader.prefetcher import FetchTask, Prefetcher
from adainf.shards.loader.source import Opener, Source
from adainf.shards.loader.weights import is_number, shown
from adainf.shards.loader.windowed import WindowedSplit

_CHOICE, _SHARE = 0xC0, 0xC1
"""Streams of random numbers, apart from those that order the images."""


@dataclass(frozen=True)
class Companions:
    """The set with the candidates of the images of source `of`."""

    folder: str | Path | ShardFolder
    of: str = "real"
    probability: float = 1.0
    """Of an image in a pass to have a companion."""
    random: bool = False
    """Whether the candidate is that of another image of the same shard: a control. An image alone in its shard has none."""

    @property
    def identity(self) -> dict[str, JsonValue]:
        """Its part of the stream's fingerprint."""
        digest = Source(self.folder).open().digest
        return {"of": self.of, "set": digest, "probability": self.probability, "random": self.random}


@dataclass(frozen=True)
class CompanionSchedule:
    """Which images have which candidate: a pure function of the plan."""

    source: int
    """Number of the source in the stream."""
    starts: Integers
    """First image of each of its shards, then the number of images."""
    candidates: int
    seed: int
    probability: float = 1.0
    random: bool = False

    @property
    def images(self) -> int:
        return int(self.starts[-1])

    def choose(self, plan: Planned, images: Integers) -> tuple[Integers, Integers]:
        """(rows, candidates' indices) of the companions of a batch; `images` are those of the rows, after replacements."""
        rows = np.flatnonzero(plan.sources == self.source)
        passes = plan.draws[rows] // self.images
        if self.probability < 1:
            words = mix(self._stream(_SHARE, passes) + images[rows].astype(np.uint64))
            chosen = (words >> np.uint64(11)).astype(np.float64) < self.probability * 2.0**53
            rows, passes = rows[chosen], passes[chosen]
        found = images[rows]
        shards = shard_of(self.starts, found)
        if self.random:
            firsts, sizes = self.starts[shards], np.diff(self.starts)[shards]
            shift = 1 + (mix(self._words(shards, passes)) % np.maximum(sizes - 1, 1).astype(np.uint64)).astype(np.int64)
            found = firsts + (found - firsts + shift) % sizes
            rows, found, shards, passes = (each[sizes > 1] for each in (rows, found, shards, passes))
        return rows, self.numbers(shards, passes) * self.images + found

    def numbers(self, shards: Integers, passes: Integers) -> Integers:
        """The candidate number of the images of each shard in that pass."""
        return (self._words(shards, passes) % np.uint64(self.candidates)).astype(np.int64)

    def _words(self, shards: Integers, passes: Integers) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return mix(self._stream(_CHOICE, passes) + shards.astype(np.uint64))

    def _stream(self, use: int, passes: Integers) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return mix(mix(mix(np.array([self.seed], np.uint64)) ^ np.uint64(use << 32 | self.source)) ^ passes.astype(np.uint64))


class CompanionFetcher:
    """Fetches the companions of a plan. Not thread-safe."""

    def __init__(self, split: CompleteSplit | WindowedSplit, schedule: CompanionSchedule, cache: Cache) -> None:
        self.split, self.schedule = split, schedule
        self._prefetcher = Prefetcher([split], cache.fetches)
        self._scheduled_to = -1

    def fetch(
        self,
        mixture: MixtureSchedule,
        position: int,
        plan: Planned,
        images: Integers,
        allocate: Callable[[tuple[int, ...]], Pixels],
    ) -> Candidates:
        """The companions of the images at `position`, whose numbers in their sources are `images`. A corrupt candidate is left
        out, by the policy. Raises `BadInput` for corruption, by the policy."""
        rows, candidates = self.schedule.choose(plan, images)
        self._prefetch(mixture, position)
        while len(missing := self.split.missing(candidates)):
            if isinstance(self.split, WindowedSplit):
                self.split.protect(missing)
            self._prefetcher.wait([FetchTask(0, shard) for shard in missing.tolist()])
        intact = self.split.replacements(candidates) == candidates
        if not intact.all():
            rows, candidates = rows[intact], candidates[intact]
        assert self.split.size is not None
        out = allocate((len(rows), *self.split.size, 3))
        if isinstance(self.split, WindowedSplit):
            self.split.take(candidates, out)
        elif not (intact := self.split.take(candidates, [out]).indices == candidates).all():
            rows, out, candidates = rows[intact], out[intact], candidates[intact]
        return Candidates(rows, out, candidates)

    def wait_for_all(self) -> None:
        """Block until every shard of an in-memory split is ready."""
        if isinstance(self.split, CompleteSplit):
            self._prefetcher.wait([FetchTask(0, shard) for shard in range(len(self.split.split))])

    def all_images(self) -> Pixels:
        """All candidates, K N x H x W x 3, once every shard is ready. Raises `BadInput` for a windowed stream."""
        if not isinstance(self.split, CompleteSplit):
            raise BadInput("a stream with window_shards never holds all companions; leave window_shards out to hold them all")
        return self.split.all_images()

    def reset(self) -> None:
        """Schedule again at the next batch, which does not follow the last one."""
        self._scheduled_to = -1

    def stop(self) -> None:
        self._prefetcher.stop()

    def close(self) -> bool:
        """Release the split, unless a thread that hangs on the network still uses it; whether it was released."""
        joined = self._prefetcher.join()
        if joined:
            self.split.close()
        return joined

    def _prefetch(self, mixture: MixtureSchedule, position: int) -> None:
        source, count = self.schedule.source, self.schedule.images
        drawn = mixture.drawn(position)[source] if mixture.windows or self._scheduled_to < 0 else 0
        if drawn < self._scheduled_to:
            return
        shards = len(self.schedule.starts) - 1
        if mixture.windows is None:  # an in-memory split is scheduled once: first what this pass and the next one need
            self._scheduled_to = 1
            first = [self._of(np.arange(shards), drawn // count + later) for later in range(2)]
            wanted = list(dict.fromkeys([*np.concatenate(first).tolist(), *range(len(self.split.split))]))
        else:
            window = mixture.window(source, drawn)
            following = mixture.window(source, window.end)
            self._scheduled_to = window.end
            needed = [self._of(window.shards, drawn // count), self._of(following.shards, window.end // count)]
            assert isinstance(self.split, WindowedSplit)
            self.split.retain(unique(np.concatenate(needed)))
            wanted = list(dict.fromkeys(np.concatenate(needed).tolist()))
        self._prefetcher.schedule([FetchTask(0, shard) for shard in wanted])

    def _of(self, shards: Integers, number: int) -> Integers:
        """The candidate shards that these shards of the source use in that pass."""
        return self.schedule.numbers(shards, np.full(len(shards), number)) * (len(self.schedule.starts) - 1) + shards


def open_companions(
    companions: Companions, sources: Mapping[str, Source], folders: Mapping[str, ShardFolder], seed: int, opener: Opener
) -> CompanionFetcher:
    """Raises `BadInput` where the set does not hold candidates of the source, image by image."""
    if not isinstance(companions, Companions):
        raise BadInput(f"companions is {shown(companions)}; give Companions(ADDRESS, of=SOURCE)")
    if companions.of not in sources:
        raise BadInput(f"companions are of source {shown(companions.of)}, which is not among {', '.join(sources)}; name one")
    if not is_number(companions.probability) or not 0 < companions.probability <= 1:
        raise BadInput(f"the probability of companions is {shown(companions.probability)}; give a number above 0, at most 1")
    parents, folder = folders[companions.of], Source(companions.folder).open()
    split, own = parents.split(sources[companions.of].split), folder.split("train")
    candidates = own.images // split.images
    known = folder.shards.origin.get("parents")
    if known is not None and known != parents.digest:
        raise BadInput(f"{folder.uri} holds candidates of another set than {parents.uri}; draw candidates for this one")
    if own.shard_images != split.shard_images * candidates or not candidates:
        raise BadInput(
            f"{folder.uri} is not aligned with {parents.uri}: it needs candidates of all {split.images} images in shards of "
            "the same sizes, once or several times"
        )
    starts = np.concatenate([[0], np.cumsum(split.shard_images)])
    number = list(sources).index(companions.of)
    schedule = CompanionSchedule(number, starts, candidates, seed, float(companions.probability), companions.random)
    return CompanionFetcher(_open(folder, split, opener), schedule, opener.cache)


def _open(folder: ShardFolder, parents: Split, opener: Opener) -> CompleteSplit | WindowedSplit:
    if opener.window_shards is None:
        return opener.open(folder, "train")
    windows = opener.windows_of(parents)  # of the parents: a window needs one candidate shard for each of their shards
    return WindowedSplit(folder, "train", opener.cache, opener.damage, opener.size_px, windows)
