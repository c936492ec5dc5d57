"""What numpy has, without the 25 ms that its own way to it takes in a fresh process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def distinct(values: Integers) -> Integers:
    """Each value once, ascending. (`numpy.unique` imports `numpy.ma`, for which a resumed process would wait.)"""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
