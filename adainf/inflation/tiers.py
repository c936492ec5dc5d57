"""Tiers of quality within a source: shards that are better than others, beyond chance.

Shards of one generator differ by chance alone, and whoever ranks them by what was measured finds the first ones good: the luck
that ranked them is in the number. So one half of each shard's images ranks the shards and cuts the ranking into tiers, and the
other half, which has chosen nothing, says how good a tier is. Neighbours that do not differ beyond the noise are one tier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.evaluation.intervals import t_quantile
from adainf.quality.record import ShardScores

Values = NDArray[np.float64]


class Tier(NamedTuple):
    """Shards of about one quality."""

    shards: list[int]
    """Their numbers, ascending."""
    ratio: float
    """Their coverage as a share of that of all shards, by the halves that chose none."""


def tiers(scores: ShardScores, space: str, most: int) -> list[Tier]:
    """At most so many tiers, the best first; one, of all shards, where they differ no more than by chance.

    A tier has two full shards at least. One that is not full would rank low for that alone: it goes with the middle tier, of
    two the worse.
    """
    images, halves_S2 = np.array(scores.images), np.array(scores.coverage_halves[space])
    is_full = images == images.max()
    full = np.flatnonzero(is_full)
    ranking, judging = halves_S2.T
    ranked = full[np.argsort(-ranking[full], kind="stable")]
    groups = np.split(ranked, _cuts(ranking[ranked], most))
    parts = np.split(ranked, _merged([judging[group] for group in groups]))
    overall = float(judging[full].mean()) or 1.0  # nothing covers anything: then there is one tier
    middle = np.flatnonzero(~is_full)
    return [
        Tier(
            sorted([*part.tolist(), *(middle.tolist() if number == len(parts) // 2 else [])]),
            float(judging[part].mean()) / overall if len(parts) > 1 else 1.0,
        )
        for number, part in enumerate(parts)
    ]


def _cuts(ranked_S: Values, most: int) -> list[int]:
    """Where to cut values in descending order into so many groups, or as many as have two each: one cut after the other, each
    that which leaves the least squares within groups."""
    ends = [0, len(ranked_S)]
    while len(ends) <= most:
        gains = [gain for first, end in pairwise(ends) for gain in _gains(ranked_S, first, end)]
        if not gains:
            break
        ends = sorted([*ends, max(gains)[1]])
    return ends[1:-1]


def _gains(ranked_S: Values, first: int, end: int) -> list[tuple[float, int]]:
    """By how much each cut of a group lessens its squares, and where it is."""
    sums, cuts = np.concatenate([[0.0], np.cumsum(ranked_S[first:end])]), np.arange(2, end - first - 1)
    before, after = sums[cuts] / cuts, (sums[-1] - sums[cuts]) / (end - first - cuts)
    gains = cuts * (end - first - cuts) / (end - first) * np.square(before - after)
    return list(zip(gains.tolist(), (first + cuts).tolist(), strict=True))


def _merged(groups: Sequence[Values]) -> list[int]:
    """Where the tiers end that are left when neighbours that do not differ have become one, the most alike first."""
    left = list(groups)
    while len(left) > 1:
        evidence = [_evidence(better, worse) for better, worse in pairwise(left)]
        weakest = int(np.argmin(evidence))
        if evidence[weakest] > 1:
            break
        left[weakest : weakest + 2] = [np.concatenate(left[weakest : weakest + 2])]
    return np.cumsum([len(group) for group in left])[:-1].tolist()


def _evidence(better: Values, worse: Values) -> float:
    """The difference of two means over what it must exceed: its standard error times the 97.5 % point of Student's t."""
    freedom = len(better) + len(worse) - 2
    difference = float(better.mean() - worse.mean())
    squares = sum(float(np.square(group - group.mean()).sum()) for group in (better, worse))
    error = math.sqrt(squares / freedom * (1 / len(better) + 1 / len(worse)))
    if error == 0:
        return math.inf if difference > 0 else 0.0
    return difference / (t_quantile(freedom) * error)
