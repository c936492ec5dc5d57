"""Weights and shares of sources as exact fractions, so that the order of a stream is the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from numbers import Integral, Rational
from typing import Any, NamedTuple, Protocol

import numpy as np

from adainf.errors import BadInput

Weight = int | float | Fraction

MAX_DENOMINATOR = 10**6
"""Of the fraction that replaces a float where its decimal exceeds exact arithmetic."""
SHARE_LIMIT = 1 << 40
"""Denominators of the shares of one or two sources are below this: exact in 64-bit integers."""


_NUMBERS = (int, float, Fraction, np.integer, np.floating)


class Weighted(Protocol):
    """See `Source`."""

    @property
    def weight(self) -> Weight: ...

    @property
    def share(self) -> Weight | None: ...


class Shares(NamedTuple):
    """The fractions that a stream uses."""

    weights: tuple[Fraction, ...]
    """Of one image of each source."""
    shares: tuple[Fraction, ...]
    """Of each source in the stream; they sum to 1."""
    error: float
    """The largest difference to the share that was asked for; 0 where the arithmetic is exact."""


def shares_of(counts: Sequence[int], weights: Sequence[Weight]) -> Shares:
    """The share of each source of `counts` images is weight x images, over the sum.

    Integers and `Fraction` are exact. A float is its shortest decimal (15.2 is 76/5) where the shares then have denominators
    below 2^40, and else the nearest fraction with a denominator of at most 10^6, of it or of its reciprocal (1/3, 3001/503).
    Raises `ValueError` where no source has both images and weight, or a share is too small.
    """
    decimals = [Fraction(str(weight)) for weight in weights]
    asked = _normalized(counts, decimals)
    if max(share.denominator for share in asked) < SHARE_LIMIT:
        return Shares(tuple(decimals), tuple(asked), 0.0)
    used = [d if isinstance(w, Rational) else nearest(d) for d, w in zip(decimals, weights, strict=True)]
    shares = _normalized(counts, used)
    positive = [number for number, share in enumerate(shares) if share]
    if len(positive) == 2 and max(share.denominator for share in shares) >= SHARE_LIMIT:
        first, second = positive
        shares[first] = shares[first].limit_denominator(SHARE_LIMIT - 1)
        shares[second] = 1 - shares[first]
        if not 0 < shares[first] < 1:
            raise ValueError(
                f"counts {counts} with weights {weights} give a share below 2^-40; choose weights that differ less"
            )
    error = max(abs(one - other) for one, other in zip(shares, asked, strict=True))
    return Shares(tuple(used), tuple(shares), float(error))


def nearest(value: Fraction) -> Fraction:
    """The nearest fraction with a denominator of at most 10^6, of a number below 1 by its reciprocal: no weight becomes 0."""
    return value.limit_denominator(MAX_DENOMINATOR) if value >= 1 or not value else 1 / nearest(1 / value)


def check_weights(sources: Mapping[str, Weighted]) -> None:
    """Raise `BadInput` for a weight or share that is not a number in its range, and where a source has both."""
    for name, source in sources.items():
        weight: Any = source.weight  # callers without a type checker
        share: Any = source.share
        if not is_number(weight) or not 0 < weight < math.inf:
            raise BadInput(
                f"source {name} has weight {shown(weight)}; give it a finite number above 0, or leave the source out"
            )
        if share is None:
            continue
        if not is_number(share) or not 0 < share <= 1:
            raise BadInput(
                f"source {name} has share {shown(share)}; give it a number above 0, at most 1, or leave the source out"
            )
        if weight != 1:
            raise BadInput(f"source {name} has weight {shown(weight)} and share {shown(share)}; give it one of them")


def resolved(sources: Mapping[str, Weighted], counts: Sequence[int]) -> list[Weight]:
    """The weight of an image of each source: its `weight`, or what gives the source its `share`.

    Sources without share divide the rest in the ratio weight x images. Raises `BadInput` for shares that cannot be met.
    """
    given = {name: nearest(Fraction(str(s.share))) for name, s in sources.items() if s.share is not None}
    if not given:
        return [source.weight for source in sources.values()]
    left = Fraction(1 - sum(given.values()))
    masses = [
        nearest(Fraction(str(s.weight))) * n for (name, s), n in zip(sources.items(), counts, strict=True) if name not in given
    ]
    if left <= 0 if masses else abs(left) > Fraction(len(given), MAX_DENOMINATOR):
        raise BadInput(
            f"the shares of {', '.join(given)} sum to {float(1 - left):g}; "
            + ("let them sum to less than 1, to leave the rest to the other sources" if masses else "let them sum to 1")
        )
    total = Fraction(sum(masses) / left) if masses else Fraction(1)
    return [
        given[name] * total / count if name in given else nearest(Fraction(str(source.weight)))
        for (name, source), count in zip(sources.items(), counts, strict=True)
    ]


def is_number(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_json(weight: Fraction) -> float | str:
    """A weight in the fingerprint: a number where that is exact, else the fraction."""
    try:
        return float(weight) if Fraction(str(float(weight))) == weight else str(weight)
    except OverflowError:
        return str(weight)


def _normalized(counts: Sequence[int], weights: Sequence[Fraction]) -> list[Fraction]:
    masses = [count * weight for count, weight in zip(counts, weights, strict=True)]
    total = sum(masses)
    if total <= 0 or min(masses) < 0:
        raise ValueError(
            f"no source has both images and weight: counts {counts}, weights {[*map(as_json, weights)]}; add images or weight"
        )
    return [Fraction(mass / total) for mass in masses]


def shown(value: object) -> str:
    """The value in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
