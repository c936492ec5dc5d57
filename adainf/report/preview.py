"""Previews of a generator during its fit: sample images and loss curve, as log files, not artifacts."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from matplotlib.figure import Figure

from adainf.generators.fit import Curve
from adainf.generators.kind import DrawBatch
from adainf.report.grids import grid_png
from adainf.storage import Store

IMAGES = 32
MAX_TIME_SHARE = 0.02
"""Maximum share of the fit's time that previews take."""


class Preview:
    """Periodically overwrites ``logs/fit/samples.png`` and ``loss.png`` of a run; with several sources, in a folder each."""

    def __init__(self, store: Store, open_draw: Callable[[], DrawBatch], source: str = "", every_s: float = 30.0) -> None:
        self._store, self._open, self._every_s = store, open_draw, every_s
        self._folder = f"logs/fit/{source}".rstrip("/")
        self._due_s = time.monotonic() + every_s

    def __call__(self, curve: Curve) -> None:
        """Write the first images of the current generator, if a preview is due."""
        started_s = time.monotonic()
        if started_s < self._due_s:
            return
        grid = grid_png(list(self._open()(range(IMAGES))))
        assert grid is not None
        self._store.put(f"{self._folder}/samples.png", grid)
        self._store.put(f"{self._folder}/loss.png", loss_png(curve))
        now_s = time.monotonic()
        self._due_s = now_s + max(self._every_s, (now_s - started_s) / MAX_TIME_SHARE)


def loss_png(curve: Curve) -> bytes:
    """The loss by step as a PNG, with a logarithmic axis."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
