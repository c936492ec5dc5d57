"""Windowed shuffling, for sources larger than the disk: shards in random order, one window of them at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adainf.shards.loader.permutation import Integers, mix, permute, unique


class _Pass(NamedTuple):
    order: Integers
    """The shards in the order of this pass."""
    shard_ends: Integers
    """The position at which each shard ends."""
    window_ends: Integers
    """The position at which each window ends."""


class Window(NamedTuple):
    shards: Integers
    end: int
    """The position after its last image."""


class Windows:
    """Passes over shards of `shard_images` images each, in windows of `window_shards` or more shards, fewer than twice as many.

    Window sizes differ by one shard at most, as a small last window would be shuffled badly. Two images of a batch share a
    shard with probability 1 / `window_shards` or less. Each pass is computed once, in time and memory linear in the number of
    shards; the last two are cached.
    """

    def __init__(self, shard_images: Integers, window_shards: int) -> None:
        self._starts = np.concatenate([[0], np.cumsum(shard_images)])
        self._images = np.asarray(shard_images, np.int64)
        count = len(self._images)
        windows = max(1, count // window_shards)
        self._firsts = np.arange(windows + 1) * count // windows
        """The first shard of each window in the order of a pass, then the number of shards."""
        self.max_shards = int(np.diff(self._firsts).max())
        self._pass = lru_cache(2)(self._make_pass)

    def images(self, positions: Integers, key: int) -> Integers:
        """The image at each position of the pass with that key."""
        order, shard_ends, window_ends = self._pass(key)
        windows = np.searchsorted(window_ends, positions, side="right")
        images = np.empty_like(positions)
        for window in unique(windows):
            rows = windows == window
            first, end = int(window_ends[window - 1]) if window else 0, int(window_ends[window])
            keys = np.full(int(rows.sum()), mix(np.array([key + int(window) & (1 << 64) - 1], np.uint64))[0])
            inside = permute(positions[rows] - first, end - first, keys) + first
            shards = np.searchsorted(shard_ends, inside, side="right")
            numbers = order[shards]
            images[rows] = self._starts[numbers] + inside - (shard_ends[shards] - self._images[numbers])
        return images

    def window_at(self, position: int, key: int) -> Window:
        """The window that contains this position."""
        order, _, window_ends = self._pass(key)
        window = int(np.searchsorted(window_ends, position, side="right"))
        return Window(order[self._firsts[window] : self._firsts[window + 1]], int(window_ends[window]))

    def _make_pass(self, key: int) -> _Pass:
        count = len(self._images)
        # The keys are all different, so any sort gives this order. Faster than `permute` for all elements.
        order = np.argsort(mix(np.arange(count, dtype=np.uint64) ^ mix(np.array([key], np.uint64))))
        shard_ends = np.cumsum(self._images[order])
        return _Pass(order, shard_ends, shard_ends[self._firsts[1:] - 1])
