"""The images of a rank's slices: several steps are planned together, to amortize numpy's overhead."""

from __future__ import annotations

import numpy as np

from adainf.shards.loader.mixture import MixtureSchedule, Planned

_PLANNED = 8192
"""Positions planned together."""


class Planner:
    """Plans the slice `part` of every global batch."""

    def __init__(self, schedule: MixtureSchedule, global_batch: int, part: slice) -> None:
        self._schedule, self._global_batch, self._slice = schedule, global_batch, part
        self._first = 0
        self._plan = Planned(*(np.empty((0, 0), np.int64) for _ in Planned._fields))
        """Row k is step `_first` + k."""

    def at(self, step: int) -> Planned:
        """The images of a step."""
        if not 0 <= step - self._first < len(self._plan.sources):
            local = self._slice.stop - self._slice.start
            steps = np.arange(step, step + max(1, _PLANNED // max(local, 1)))
            positions = steps[:, None] * self._global_batch + np.arange(self._slice.start, self._slice.stop)
            columns = self._schedule.planned(positions.ravel())
            self._first, self._plan = step, Planned(*(column.reshape(len(steps), local) for column in columns))
        return Planned(*(column[step - self._first] for column in self._plan))
