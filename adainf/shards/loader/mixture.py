"""The weighted mixture: the source and the image at each position of the infinite training sequence.

A pure function of (counts, weights, seed, position), for three or more sources also of the global batch. Ranks that take slices
of the same global batch see the same images for any number of ranks, and resuming only needs the next position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.shards.loader.apportion import Balanced, Nested, apportion
from adainf.shards.loader.permutation import Integers, mix, permute, unique
from adainf.shards.loader.weights import Shares, Weight, shares_of
from adainf.shards.loader.windows import Window, Windows


class Planned(NamedTuple):
    """The image of each position; columns of the same shape."""

    sources: Integers
    images: Integers
    """Index in its source."""
    draws: Integers
    """Number of images drawn of its source before it: // the number of images is the pass."""


@dataclass(frozen=True)
class MixtureSchedule:
    """Sources of `counts` images each; an image of source s appears `weights[s]` times as often as one of weight 1.

    Any L consecutive positions contain each of two sources in its share of L, rounded down or up. With more, each global
    batch does, and a slice of L of its positions within 2 + L / global_batch (see `Balanced`). Each pass over a source is a new
    permutation of its images. Only counts are stored, so access to any position costs the same. Raises `ValueError` as
    `shares_of` does.

    With `windows` (one per source) a pass goes through its windows of shards in turn, each shuffled separately, so that a node
    needs only two windows of a source at a time.
    """

    counts: Sequence[int]
    weights: Sequence[Weight]
    seed: int
    windows: Sequence[Windows] | None = None
    global_batch: int = 1
    """The order of three or more sources depends on it."""
    earlier: MixtureSchedule | None = None
    """The mixture before position `first`, of these sources or fewer: each continues at its position."""
    first: int = 0
    used: Shares = field(init=False)
    _apportionment: Nested | Balanced = field(init=False)
    _before: list[int] = field(init=False)
    """Images of each source before `first`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "used", shares_of(self.counts, self.weights))
        object.__setattr__(self, "_apportionment", apportion(self.shares, self.global_batch))
        before = self.earlier.drawn(self.first) if self.earlier else []
        object.__setattr__(self, "_before", before + [0] * (len(self.counts) - len(before)))

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return self.used.shares

    def at(self, positions: Integers) -> tuple[Integers, Integers]:
        """(source, image index) of each position, as two arrays of the shape of `positions`."""
        return self.planned(positions)[:2]

    def planned(self, positions: Integers) -> Planned:
        """The image of each position."""
        if not self.earlier or (positions >= self.first).all():
            return self._own(positions)
        found = Planned(*(np.empty_like(positions) for _ in Planned._fields))
        mixture: MixtureSchedule | None = self
        left = np.arange(len(positions))
        while mixture and len(left):  # not recursive: there may be thousands of changes
            own = positions[left] >= mixture.first
            rows, left = left[own], left[~own]
            if len(rows):
                for column, values in zip(found, mixture._own(positions[rows]), strict=True):
                    column[rows] = values
            mixture = mixture.earlier
        return found

    def _own(self, positions: Integers) -> Planned:
        """`planned` for positions of this mixture, not of an earlier one."""
        sources, draws = self._apportionment.draws(positions - self.first if self.first else positions)
        if any(self._before):
            draws += np.array(self._before)[sources]
        images = np.empty_like(positions)
        for source in range(len(self.counts)):
            mine = np.flatnonzero(sources == source)
            images[mine] = self._image(source, draws[mine])
        return Planned(sources, images, draws)

    def drawn(self, position: int) -> list[int]:
        """The number of images of each source before `position`."""
        mixture = self.mixture_at(position)
        inside = mixture._apportionment.drawn(position - mixture.first)
        drawn = [before + more for before, more in zip(mixture._before, inside, strict=True)]
        return drawn + [0] * (len(self.counts) - len(drawn))

    def mixture_at(self, position: int) -> MixtureSchedule:
        """The mixture of that position."""
        mixture = self
        while mixture.earlier and position < mixture.first:
            mixture = mixture.earlier
        return mixture

    def active(self, position: int) -> list[int]:
        """The sources that have weight at that position or later."""
        mixture, found = self, {source for source, share in enumerate(self.shares) if share}
        while mixture.earlier and position < mixture.first:
            mixture = mixture.earlier
            found.update(source for source, share in enumerate(mixture.shares) if share)
        return sorted(found)

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
