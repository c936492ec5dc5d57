"""Whole numbers in arrays: what is asked of them in more than one file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def distinct(values: Integers) -> Integers:
    """Each value once, ascending. (`numpy.unique` imports `numpy.ma`: 25 ms for which a resumed process would wait.)"""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def owners(starts: Integers, indices: Integers) -> Integers:
    """Which shard holds each image, where shard n holds those from `starts[n]` to before `starts[n + 1]`."""
    return np.searchsorted(starts, indices, side="right") - 1
