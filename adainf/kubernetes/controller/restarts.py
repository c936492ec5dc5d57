"""Failures of the controller's own pods, counted per time window.

The Job controller counts them over the lifetime of a Job, so that a run of weeks would reach any limit. Disruptions do not
count, as the Job's podFailurePolicy ignores them.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW_S = 6 * 3600
LIMIT = 20
"""Failures within the window. With the back-off of the Job controller, 20 take at least two hours."""

History = list[tuple[float, int]]
"""Time of a start of the controller, and the number of failed pods of its Job until then."""


def recent_failures(history: Sequence[Sequence[float]], failed: int, now: float) -> tuple[int, History]:
    """The number of failures within the window, and the history to store. `failed`: failed pods of the Job now.

    Of the failures before the first start in the history the times are unknown: they count as old.
    """
    entries = [(float(at), int(count)) for at, count in history if at <= now]
    if not entries or entries[-1][1] != failed:
        entries.append((now, failed))
    old = [entry for entry in entries if entry[0] < now - WINDOW_S]
    kept = [*old[-1:], *entries[len(old) :]]
    return failed - kept[0][1], kept
