"""Numbers about a source and a run that cost no decoding: labels, copies, and what the plan made of them."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from adainf.browse.catalog import Catalog, Place
from adainf.browse.reading import Reader
from adainf.browse.sources import Source
from adainf.errors import BadInput
from adainf.inflation.record import InflationPlan, SourceWeight
from adainf.pipeline.artifacts import sha256
from adainf.shards.loader.permutation import shard_of


def plan_of(catalog: Catalog) -> InflationPlan | None:
    """The run's plan; None if it has none, or one in the format of another version, as its images can be shown without it."""
    manifest = catalog.run.find("plan") if catalog.is_run else None
    if manifest is None:
        return None
    with suppress(BadInput):
        return manifest.content_as(InflationPlan)
    return None


def weight_in(source: str, plan: InflationPlan | None) -> str:
    """How often an image of the source is drawn, compared with one of the best generated ones; empty where none is."""
    if plan is not None and source == "real/train":
        return f"{plan.real_weight:g}"
    weighed = _weighed(source, plan)
    return f"{weighed.weight:g}" if weighed else ""


def quality_in(source: str, plan: InflationPlan | None) -> str:
    """The q of its images that the plan goes by, and whether anybody has measured it; empty for real ones."""
    weighed = _weighed(source, plan)
    return f"{weighed.quality:g}" + " (assumed)" * (not weighed.is_measured) if weighed else ""


def _weighed(source: str, plan: InflationPlan | None) -> SourceWeight | None:
    """What the plan says about the source; None where the plan does not use it."""
    return plan.sources.get(source.removesuffix("/train")) if plan else None


def label_counts(source: Source) -> dict[int, int]:
    """Samples by label, ascending; those without one do not count."""
    labels = source.labels()
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def duplicates(source: Source, reader: Reader) -> list[list[Place]]:
    """Groups of samples whose encoded images are the same bytes, the largest first.

    Checksum and size choose who may be alike; those are read, and SHA-256 decides: among a million images a hundred pairs share
    a CRC-32 by chance.
    """
    columns = [source.columns(shard) for shard in range(len(source.known))]
    words = np.concatenate([np.empty(0, np.int64), *[(one.crc32s << 31) ^ one.sizes_bytes for one in columns]])
    starts = np.concatenate([[0], np.cumsum(source.known)])
    order = np.argsort(words, kind="stable")
    same = np.flatnonzero(words[order][1:] == words[order][:-1])
    found: dict[str, list[Place]] = {}
    candidates = np.unique(order[np.concatenate([same, same + 1])])
    shards = shard_of(starts, candidates)
    places = [Place(int(shard), int(at)) for shard, at in zip(shards, candidates - starts[shards], strict=True)]
    for first in range(0, len(places), 256):
        batch = places[first : first + 256]
        for place, data in zip(batch, reader.read(source, batch), strict=True):
            if isinstance(data, bytes):
                found.setdefault(sha256(data), []).append(place)
    return sorted((group for group in found.values() if len(group) > 1), key=lambda group: (-len(group), group))
