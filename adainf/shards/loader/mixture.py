"""The mixture as a schedule: which image of which source stands at each position of the endless training sequence.

A pure function of (counts, weights, seed, position). Any number of ranks that take slices of the same global batch see
the same images, and to resume is to go on at the next position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from adainf.shards.loader.arrays import distinct
from adainf.shards.loader.permutation import mix, permute
from adainf.shards.loader.windows import Window, Windows

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class MixtureSchedule:
    """Sources of `counts` images each; an image of source s comes `weights[s]` times as often as one of weight 1.

    In any stretch of L positions each of two sources has its share of L, rounded down or up; with more, a later one may be
    off by one more. Each pass over a source is a fresh permutation in which every image comes once. Nothing is stored but
    counts, so any position costs the same. Raises `ValueError` where no source has both images and weight, or the counts are
    beyond exact arithmetic.

    With `windows` (one for each source) a pass goes through its windows of shards one after the other, each shuffled in
    itself, so that a node holds two windows and not the whole source.
    """

    counts: Sequence[int]
    weights: Sequence[float]
    seed: int
    windows: Sequence[Windows] | None = None
    shares: tuple[Fraction, ...] = field(init=False)

    def __post_init__(self) -> None:
        # The decimal that the plan shows is meant, not the nearest binary number: 15.2 is 76/5.
        masses = [count * Fraction(str(weight)) for count, weight in zip(self.counts, self.weights, strict=True)]
        total = sum(masses)
        if total <= 0 or min(masses) < 0:
            raise ValueError(f"no source has both images and weight: counts {self.counts}, weights {self.weights}")
        if max(Fraction(mass / total).denominator for mass in masses) >= 1 << 40:
            raise ValueError(f"counts {self.counts} with weights {self.weights} are beyond exact arithmetic; round the weights")
        object.__setattr__(self, "shares", tuple(Fraction(mass / total) for mass in masses))

    def at(self, positions: Positions) -> tuple[Positions, Positions]:
        """(source, image index) of each position, as two arrays of the shape of `positions`."""
        sources = np.empty_like(positions)
        images = np.empty_like(positions)
        left = np.arange(len(positions))
        turns = positions.copy()
        for source, part in enumerate(self._parts()):
            before = _floor_multiple(turns, part)
            mine = _floor_multiple(turns + 1, part) > before
            sources[left[mine]] = source
            images[left[mine]] = self._image(source, before[mine])
            # Positions of the other sources count on among themselves, so that each pair is interleaved exactly.
            left, turns = left[~mine], (turns - before)[~mine]
        return sources, images

    def drawn(self, position: int) -> list[int]:
        """How many images of each source stand before `position`."""
        turns = np.array([position])
        drawn = []
        for part in self._parts():
            before = _floor_multiple(turns, part)
            drawn.append(int(before[0]))
            turns = turns - before
        return drawn

    def _parts(self) -> list[Fraction]:
        """Each source's share of the positions that those before it have left."""
        remaining, parts = Fraction(1), []
        for share in self.shares:
            parts.append(share / remaining if remaining else Fraction(0))
            remaining -= share
        return parts

    def _image(self, source: int, draws: Positions) -> Positions:
        """The k-th image ever drawn of a source: its place in the permutation of that pass."""
        epochs, places = np.divmod(draws, self.counts[source])
        if self.windows is None:
            return permute(places, self.counts[source], mix(self._stream(source) ^ epochs.astype(np.uint64)))
        images = np.empty_like(places)
        for epoch in distinct(epochs):
            rows = epochs == epoch
            images[rows] = self.windows[source].images(places[rows], self._pass_key(source, int(epoch)))
        return images

    def window(self, source: int, draw: int) -> Window:
        """The shards among which the `draw`-th image of a source is, and the first draw after them; only with `windows`."""
        assert self.windows is not None
        epoch, place = divmod(draw, self.counts[source])
        window = self.windows[source].window_at(place, self._pass_key(source, epoch))
        return Window(window.shards, epoch * self.counts[source] + window.end)

    def _pass_key(self, source: int, epoch: int) -> int:
        return int(mix(self._stream(source) ^ np.array([epoch], np.uint64))[0])

    def _stream(self, source: int) -> NDArray[np.uint64]:
        return mix(mix(np.array([self.seed], np.uint64)) + np.uint64(source))


def _floor_multiple(turns: Positions, part: Fraction) -> Positions:
    """floor(turn x part), exactly for denominators below 2^40: in two steps of 20 bits, so that 64 bits hold all."""
    numerator, denominator = part.numerator, part.denominator
    whole, rest = np.divmod(turns, denominator)
    high, low = divmod(numerator, 1 << 20)
    quotient, remainder = np.divmod(rest * high, denominator)
    return whole * numerator + (quotient << 20) + ((remainder << 20) + rest * low) // denominator
