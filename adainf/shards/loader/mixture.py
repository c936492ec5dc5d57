"""The weighted mixture: the source and the image at each position of the infinite training sequence.

A pure function of (counts, weights, seed, position). Ranks that take slices of the same global batch see the same images for
any number of ranks, and resuming only needs the next position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from adainf.shards.loader.permutation import Integers, mix, permute, unique
from adainf.shards.loader.weights import Shares, Weight, shares_of
from adainf.shards.loader.windows import Window, Windows


@dataclass(frozen=True)
class MixtureSchedule:
    """Sources of `counts` images each; an image of source s appears `weights[s]` times as often as one of weight 1.

    Any L consecutive positions contain each of two sources in its share of L, rounded down or up; with more sources, each
    later one may deviate by one more. Each pass over a source is a new permutation of its images. Only counts are stored, so
    access to any position costs the same. Raises `ValueError` as `shares_of` does.

    With `windows` (one per source) a pass goes through its windows of shards in turn, each shuffled separately, so that a node
    needs only two windows of a source at a time.
    """

    counts: Sequence[int]
    weights: Sequence[Weight]
    seed: int
    windows: Sequence[Windows] | None = None
    used: Shares = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "used", shares_of(self.counts, self.weights))

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return self.used.shares

    def at(self, positions: Integers) -> tuple[Integers, Integers]:
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
            # The remaining positions are renumbered for the next sources, so that each pair is interleaved exactly.
            left, turns = left[~mine], (turns - before)[~mine]
        return sources, images

    def drawn(self, position: int) -> list[int]:
        """The number of images of each source before `position`."""
        turns = np.array([position])
        drawn = []
        for part in self._parts():
            before = _floor_multiple(turns, part)
            drawn.append(int(before[0]))
            turns = turns - before
        return drawn

    def _parts(self) -> list[Fraction]:
        """Each source's share of the positions that the sources before it leave."""
        remaining, parts = Fraction(1), []
        for share in self.shares:
            parts.append(share / remaining if remaining else Fraction(0))
            remaining -= share
        return parts

    def _image(self, source: int, draws: Integers) -> Integers:
        """The k-th image ever drawn of a source: its element of the permutation of that pass."""
        epochs, places = np.divmod(draws, self.counts[source])
        if self.windows is None:
            return permute(places, self.counts[source], mix(self._stream(source) ^ epochs.astype(np.uint64)))
        images = np.empty_like(places)
        for epoch in unique(epochs):
            rows = epochs == epoch
            images[rows] = self.windows[source].images(places[rows], self._pass_key(source, int(epoch)))
        return images

    def window(self, source: int, draw: int) -> Window:
        """The window of the `draw`-th image of a source, and the first draw after it; only with `windows`."""
        assert self.windows is not None
        epoch, place = divmod(draw, self.counts[source])
        window = self.windows[source].window_at(place, self._pass_key(source, epoch))
        return Window(window.shards, epoch * self.counts[source] + window.end)

    def _pass_key(self, source: int, epoch: int) -> int:
        return int(mix(self._stream(source) ^ np.array([epoch], np.uint64))[0])

    def _stream(self, source: int) -> NDArray[np.uint64]:
        return mix(mix(np.array([self.seed], np.uint64)) + np.uint64(source))


def _floor_multiple(turns: Integers, part: Fraction) -> Integers:
    """floor(turn x part), exact for denominators below 2^40: two steps of 20 bits, which do not overflow 64 bits."""
    numerator, denominator = part.numerator, part.denominator
    whole, rest = np.divmod(turns, denominator)
    high, low = divmod(numerator, 1 << 20)
    quotient, remainder = np.divmod(rest * high, denominator)
    return whole * numerator + (quotient << 20) + ((remainder << 20) + rest * low) // denominator
