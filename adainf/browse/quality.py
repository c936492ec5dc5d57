"""Quality of the shards of generated images, from ``quality/manifest.json`` (with several sources, ``quality/NAME/…``).

Reads only ``shards.fd`` of its content: by space, the Fréchet distance of each generated shard to real images, in the order
of the split `train`. Content of another shape counts as not measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, get_args

import numpy as np

from adainf.browse.sources import BrowseSource
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest

_SPACES = ("ssl", "rand")
"""Spaces in order of preference: the encoder of the run, a random network."""

Order = Literal["best", "worst", "top", "middle", "bottom"]
"""All shards, best or worst first; or one third of them, best first."""


class ShardQuality(NamedTuple):
    space: str
    distances: list[float]
    """Distance of each shard to real images; lower is better."""

    def shards(self, order: str) -> list[int]:
        """The shards in this order. Raises `BadInput` for an unknown order."""
        if order not in get_args(Order):
            raise BadInput(f"invalid quality {order[:40]!r}: expected one of {', '.join(get_args(Order))}")
        best_first = np.argsort(self.distances, kind="stable")
        if order == "worst":
            return best_first[::-1].tolist()
        thirds = dict(zip(("top", "middle", "bottom"), np.array_split(best_first, 3), strict=True))
        return thirds.get(order, best_first).tolist()


def measurement(run: Run, source: str) -> Manifest | None:
    """The quality manifest of a source; None if missing or corrupt, because images are shown without it, too."""
    artifact = quality_artifact(source)
    with suppress(BadInput):
        return run.find(artifact) if artifact else None
    return None


def quality_artifact(source: str) -> str:
    """The quality artifact of a source: ``quality`` or ``quality/NAME``; empty for real images."""
    found = re.fullmatch(r"generated(|/[^/]+)/train", source)
    return f"quality{found[1]}" if found else ""


def quality_of(run: Run, source: BrowseSource) -> ShardQuality | None:
    """The quality of the source's shards; None if not measured, or measured for other shards."""
    manifest = measurement(run, source.name)
    shards = manifest.content.get("shards") if manifest else None
    by_space = shards.get("fd") if isinstance(shards, dict) else None
    if not isinstance(by_space, dict):
        return None
    space = next((name for name in (*_SPACES, *by_space) if name in by_space), "")
    found = by_space.get(space)
    if not isinstance(found, Sequence) or len(found) != source.shards:
        return None
    distances = [float(value) for value in found if isinstance(value, int | float)]
    return ShardQuality(space, distances) if len(distances) == source.shards else None
