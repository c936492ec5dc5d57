"""A pass over a source that is larger than the disk: shards in random order, shuffled a window of them at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adainf.shards.loader.arrays import Integers, distinct
from adainf.shards.loader.permutation import mix, permute


class _Pass(NamedTuple):
    order: Integers
    """Shards in the order of this pass."""
    shard_ends: Integers
    """Places at which each of them ends."""
    window_ends: Integers
    """Places at which each window ends."""


class Window(NamedTuple):
    shards: Integers
    end: int
    """The place after its last."""


class Windows:
    """Shards of `shard_images` images each, at least `window_shards` of them at a time and fewer than twice so many.

    Windows are of one size, give or take a shard: a rest of a few shards would be shuffled badly. Two images of a batch share
    a shard with probability 1 / `window_shards` or less. A pass costs memory and time in the number of shards once; the last
    two are kept.
    """

    def __init__(self, shard_images: Integers, window_shards: int) -> None:
        self._starts = np.concatenate([[0], np.cumsum(shard_images)])
        self._images = np.asarray(shard_images, np.int64)
        count = len(self._images)
        windows = max(1, count // window_shards)
        self._firsts = np.arange(windows + 1) * count // windows
        """Where each window begins in the order of a pass, and where the last one ends."""
        self.most_shards = int(np.diff(self._firsts).max())
        self._pass = lru_cache(2)(self._make_pass)

    def images(self, places: Integers, key: int) -> Integers:
        """The image at each place of the pass that `key` names."""
        order, shard_ends, window_ends = self._pass(key)
        windows = np.searchsorted(window_ends, places, side="right")
        images = np.empty_like(places)
        for window in distinct(windows):
            rows = windows == window
            first, end = int(window_ends[window - 1]) if window else 0, int(window_ends[window])
            keys = np.full(int(rows.sum()), mix(np.array([key + int(window) & (1 << 64) - 1], np.uint64))[0])
            inside = permute(places[rows] - first, end - first, keys) + first
            shards = np.searchsorted(shard_ends, inside, side="right")
            numbers = order[shards]
            images[rows] = self._starts[numbers] + inside - (shard_ends[shards] - self._images[numbers])
        return images

    def window_at(self, place: int, key: int) -> Window:
        """The window that holds this place."""
        order, _, window_ends = self._pass(key)
        window = int(np.searchsorted(window_ends, place, side="right"))
        return Window(order[self._firsts[window] : self._firsts[window + 1]], int(window_ends[window]))

    def _make_pass(self, key: int) -> _Pass:
        count = len(self._images)
        # By words that are all different, so any sort gives this order; quicker than `permute` where all are wanted.
        order = np.argsort(mix(np.arange(count, dtype=np.uint64) ^ mix(np.array([key], np.uint64))))
        shard_ends = np.cumsum(self._images[order])
        return _Pass(order, shard_ends, shard_ends[self._firsts[1:] - 1])
