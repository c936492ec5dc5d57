"""A keyed permutation of 0 … n - 1 that is computed, not stored: any element of any pass, without the others.

A Feistel network (Luby and Rackoff 1988) over the smallest domain of an even number of bits that holds n, walked until it
falls below n (Black and Rogaway 2002, cycle walking). Its round function is a 64-bit mixer; this shuffles, it hides nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adainf.shards.loader.arrays import Integers

ROUNDS = 6

_Words = NDArray[np.uint64]


def permute(index: Integers, count: int, keys: _Words) -> Integers:
    """The image of each of `index` (0 … count - 1) under the permutation that its own key names; same shape as `index`."""
    half_bits = max((count - 1).bit_length() + 1, 2) // 2
    half = np.uint64(half_bits)
    # Far apart, as neighbouring keys would make one round the image of another.
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
        walking = walking[x >= count]  # outside: on to the next element of its cycle, which ends inside
    return values.astype(np.int64)


def mix(words: _Words) -> _Words:
    """A bijection of 64-bit words in which every bit depends on every other (SplitMix64's finaliser, Steele et al. 2014)."""
    x = words + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
