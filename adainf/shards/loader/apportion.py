"""Apportionment: the source at each position of the infinite sequence, from exact shares, with random access.

One or two sources are interleaved by rounding t x share down: any interval is within 1 of its share. For more sources, an order
with that property exists for few shares only (Fraenkel's conjecture; Altman, Gaujal and Hordijk 2000). There the unit is the
global batch: it contains each source in its share, rounded down or up, and spreads it evenly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from math import ceil, floor, gcd, isqrt, lcm

import numpy as np
from numpy.typing import NDArray

from adainf.shards.loader.permutation import Integers, unique

_CANDIDATES = 256
_ROTATIONS = 512


def apportion(shares: Sequence[Fraction], batch: int) -> Nested | Balanced:
    """The apportionment for these shares, some of which may be 0, in global batches of `batch` images."""
    return Balanced(shares, batch) if is_balanced(shares) else Nested(shares)


def is_balanced(shares: Sequence[Fraction]) -> bool:
    """Whether the order depends on the global batch."""
    return sum(share > 0 for share in shares) > 2


class Nested:
    """At most two sources: source 0 takes floor(t x share) of the first t positions, the other one the rest."""

    def __init__(self, shares: Sequence[Fraction]) -> None:
        self._parts = []
        """Each source's share of the positions that the sources before it leave."""
        remaining = Fraction(1)
        for share in shares:
            self._parts.append(share / remaining if remaining else Fraction(0))
            remaining -= share

    def draws(self, positions: Integers) -> tuple[Integers, Integers]:
        """The source of each position, and the number of its images before that position."""
        sources, draws = np.empty_like(positions), np.empty_like(positions)
        left, turns = np.arange(len(positions)), positions.copy()
        for source, part in enumerate(self._parts):
            before = _floor_multiple(turns, part)
            mine = _floor_multiple(turns + 1, part) > before
            sources[left[mine]], draws[left[mine]] = source, before[mine]
            left, turns = left[~mine], (turns - before)[~mine]
        return sources, draws

    def drawn(self, position: int) -> list[int]:
        """The number of images of each source before `position`."""
        turns, drawn = position, []
        for part in self._parts:
            drawn.append(turns * part.numerator // part.denominator)
            turns -= drawn[-1]
        return drawn


class Balanced:
    """Three or more sources, by global batches of `batch` images.

    **Counts.** On a line, source i covers an interval of batch x share(i). Batch n takes the sources at the points j + u(n),
    j = 0 … batch - 1 (systematic sampling, Madow and Madow 1944). So each count is batch x share(i), rounded down or up. u(n)
    visits all multiples of 1/cycle in steps near the golden ratio; any `cycle` batches contain each source in exactly its
    share. The count in all batches before one is a sum of floors of an arithmetic progression: O(log cycle) operations.

    **Order.** The j-th image of a source with n images in the batch gets a position from floor((j - 1) batch / n) to
    ceil(j batch / n) - 1, the earliest deadline first. Such an order exists for any counts (Steiner and Yeomans 1993; Baruah et
    al. 1996), and its first t positions contain t n / batch images within less than 1. There are at most as many different
    orders as sources; each is computed once.

    So a slice of L positions of a batch contains L x share within less than 2 + L / batch. That holds for every rotation of an
    order, too; the one is used in which the fewest counts of the slices of up to 8 ranks are beyond 1, of 2, 4 and 8 above all.
    """

    def __init__(self, shares: Sequence[Fraction], batch: int) -> None:
        self._batch, self._shares = batch, shares
        ends = [batch * end for end in accumulate(shares, initial=Fraction(0))]
        self._cycle = lcm(*(end.denominator for end in ends))
        self._ends = [int(end * self._cycle) for end in ends]
        self._step = _even_step(self._cycle)
        self._breaks = sorted({-end % self._cycle for end in self._ends})
        """Offsets, times `cycle`, from which on a batch has other counts."""
        self._memo = (0, np.zeros(len(shares), np.int64))

    def draws(self, positions: Integers) -> tuple[Integers, Integers]:
        """The source of each position, and the number of its images before that position."""
        batches, places = np.divmod(positions, self._batch)
        numbers = unique(batches)
        kinds = np.array([self._kind(number) for number in numbers.tolist()], np.int64)
        before = np.array([self._before(number) for number in numbers.tolist()]).reshape(len(numbers), len(self._ends) - 1)
        rows = np.searchsorted(numbers, batches)
        orders, ranks = self._orders
        sources = orders[kinds[rows], places].astype(np.int64)
        return sources, before[rows, sources] + ranks[kinds[rows], places]

    def drawn(self, position: int) -> list[int]:
        """The number of images of each source before `position`."""
        batch, place = divmod(position, self._batch)
        inside = np.bincount(self._orders[0][self._kind(batch), :place], minlength=len(self._ends) - 1)
        drawn: list[int] = (self._before(batch) + inside).tolist()
        return drawn

    def _kind(self, batch: int) -> int:
        return bisect_right(self._breaks, batch * self._step % self._cycle) - 1

    def _counts(self, offset: int) -> list[int]:
        ends = [(end + offset) // self._cycle for end in self._ends]
        return [end - start for start, end in pairwise(ends)]

    def _before(self, batch: int) -> Integers:
        """The number of images of each source in all batches before this one."""
        last, drawn = self._memo
        if last + 1 == batch:
            drawn = drawn + self._kinds[self._kind(last)]
        elif last != batch:
            ends = [floor_sum(batch, self._cycle, self._step, end) for end in self._ends]
            drawn = np.array([end - start for start, end in pairwise(ends)], np.int64)
        self._memo = batch, drawn
        return drawn

    @cached_property
    def _kinds(self) -> Integers:
        """The counts of each kind of batch."""
        return np.array([self._counts(offset) for offset in self._breaks])

    @cached_property
    def _orders(self) -> tuple[NDArray[np.uint16], Integers]:
        """For each kind of batch and position: the source, and its number of images before that position."""
        orders = np.array([self._rotated(np.array(spread(counts))) for counts in self._kinds.tolist()], np.uint16)
        ranks = np.empty(orders.shape, np.int64)
        for source in range(len(self._ends) - 1):
            mine = orders == source
            ranks[mine] = (mine.cumsum(axis=1) - 1)[mine]
        return orders, ranks

    def _rotated(self, order: Integers) -> Integers:
        batch, shares = self._batch, self._shares
        before = np.zeros((2 * batch + 1, len(shares)), np.int64)
        np.cumsum(np.concatenate([order, order])[:, None] == np.arange(len(shares)), axis=0, out=before[1:])
        rotations = np.arange(0, batch, -(-batch // _ROTATIONS))
        beyond = np.zeros(len(rotations), np.int64)
        for start, end, least, most, importance in self._slices:
            counts = before[rotations + end] - before[rotations + start]
            beyond += importance * ((counts < least) | (counts > most)).sum(axis=1)
        return np.roll(order, -rotations[beyond.argmin()])

    @cached_property
    def _slices(self) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...], int]]:
        """(start, end, least counts, greatest counts within 1 of the share, importance) of the slices of up to 8 ranks."""
        batch, found = self._batch, Counter[tuple[int, int]]()
        for world in (2, 3, 4, 5, 6, 7, 8):
            for rank in range(world):
                found[batch * rank // world, batch * (rank + 1) // world] += 4 if world in (2, 4, 8) else 1
        return [
            (
                start,
                end,
                tuple(ceil((end - start) * share - 1) for share in self._shares),
                tuple(floor((end - start) * share + 1) for share in self._shares),
                importance,
            )
            for (start, end), importance in sorted(found.items())
        ]


def _even_step(cycle: int) -> int:
    """A number whose multiples modulo `cycle` are spread evenly, from the first on: near the golden ratio, with small partial
    quotients, which bound the deviation from even (Kuipers and Niederreiter 1974, section 2.3)."""
    golden = (isqrt(5 * cycle**2) - cycle) // 2
    candidates = [step for step in range(golden, golden + _CANDIDATES) if gcd(step, cycle) == 1]
    return min(candidates, key=lambda step: sum(_quotients(step, cycle)))


def _quotients(numerator: int, denominator: int) -> list[int]:
    """The partial quotients of the continued fraction."""
    found = []
    while numerator:
        quotient, rest = divmod(denominator, numerator)
        found.append(quotient)
        numerator, denominator = rest, numerator
    return found


def spread(counts: Sequence[int]) -> list[int]:
    """An order of `counts[i]` elements i in which each is spread evenly; see `Balanced`."""
    batch = sum(counts)
    jobs = sorted((j * batch // n, -(-(j + 1) * batch // n), source) for source, n in enumerate(counts) for j in range(n))
    order: list[int] = []
    ready: list[tuple[int, int]] = []
    upcoming = iter(jobs)
    following = next(upcoming, None)
    for position in range(batch):
        while following and following[0] <= position:
            heappush(ready, following[1:])
            following = next(upcoming, None)
        order.append(heappop(ready)[1])
    return order


def floor_sum(count: int, divisor: int, step: int, offset: int) -> int:
    """The sum of floor((i x step + offset) / divisor) for i = 0 … count - 1, as in Euclid's algorithm."""
    total = 0
    while True:
        total += count * (count - 1) // 2 * (step // divisor) + count * (offset // divisor)
        step, offset = step % divisor, offset % divisor
        last = step * count + offset
        if last < divisor:
            return total
        count, offset = divmod(last, divisor)
        divisor, step = step, divisor


def _floor_multiple(turns: Integers, part: Fraction) -> Integers:
    """floor(turn x part), exact for denominators below 2^40: two steps of 20 bits, which do not overflow 64 bits."""
    numerator, denominator = part.numerator, part.denominator
    whole, rest = np.divmod(turns, denominator)
    high, low = divmod(numerator, 1 << 20)
    quotient, remainder = np.divmod(rest * high, denominator)
    return whole * numerator + (quotient << 20) + ((remainder << 20) + rest * low) // denominator
