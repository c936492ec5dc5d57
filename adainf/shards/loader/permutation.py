"""A keyed permutation of 0 … n - 1 with random access, computed instead of stored; and helpers for index arrays.

A Feistel network (Luby and Rackoff 1988) over the smallest domain of an even number of bits that holds n, with cycle walking
(Black and Rogaway 2002) until the value falls below n. The round function is a 64-bit mixer: a shuffle, not a cipher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

ROUNDS = 6

_Words = NDArray[np.uint64]


def permute(index: Integers, count: int, keys: _Words) -> Integers:
    """Each element of `index` (0 … count - 1) under the permutation of its own key; same shape as `index`."""
    half_bits = max((count - 1).bit_length() + 1, 2) // 2
    half = np.uint64(half_bits)
    # Far apart: with close round keys, one round would repeat another under a neighbouring key.
    round_keys = [np.uint64(number * 0xD1342543DE82EF95 & 0xFFFFFFFFFFFFFFFF) for number in range(ROUNDS)]
    mask = np.uint64((1 << half_bits) - 1)
    values = index.astype(np.uint64)
    walking = np.arange(len(values))
    while len(walking):
        x, key = values[walking], keys[walking]
        left, right = x >> half, x & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ (key + round_key)) & mask)
        x = (left << half) | right
        values[walking] = x
        walking = walking[x >= count]  # out of range: continue along the cycle, which returns into it
    return values.astype(np.int64)


def mix(words: _Words) -> _Words:
    """A bijection of 64-bit words in which every bit depends on every other (SplitMix64's finalizer, Steele et al. 2014)."""
    x = words + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unique(values: Integers) -> Integers:
    """Sorted unique values. (`numpy.unique` imports `numpy.ma`, which delays a resumed process by 25 ms.)"""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def shard_of(starts: Integers, indices: Integers) -> Integers:
    """The shard of each image, where shard n holds images `starts[n]` to `starts[n + 1]` - 1."""
    return np.searchsorted(starts, indices, side="right") - 1
