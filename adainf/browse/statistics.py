"""Statistics of a source without decoding images: label counts, exact duplicates, plan weight and quality score."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from adainf.browse.catalog import Catalog, SampleRef, samples_at
from adainf.browse.reader import Reader
from adainf.browse.sources import BrowseSource
from adainf.errors import BadInput
from adainf.inflation.record import InflationPlan, SourceWeight
from adainf.pipeline.records import sha256
from adainf.shards.loader.permutation import Integers


def read_plan(catalog: Catalog) -> InflationPlan | None:
    """The plan of the run; None without a plan, or if its format is that of another version."""
    manifest = catalog.run.find("plan") if catalog.is_run else None
    if manifest is None:
        return None
    with suppress(BadInput):
        return manifest.content_as(InflationPlan)
    return None


def source_weight(source: str, plan: InflationPlan | None) -> str:
    """The sampling weight of the source's images relative to the best generated ones; empty if not in the plan."""
    if plan is not None and source == "real/train":
        return f"{plan.real_weight:g}"
    entry = _plan_entry(source, plan)
    return f"{entry.weight:g}" if entry else ""


def quality_score(source: str, plan: InflationPlan | None) -> str:
    """The quality score q of the source in the plan, marked if assumed, not measured; empty for real images."""
    entry = _plan_entry(source, plan)
    return f"{entry.quality:g}" + " (assumed)" * (not entry.is_measured) if entry else ""


def _plan_entry(source: str, plan: InflationPlan | None) -> SourceWeight | None:
    """The plan's entry of the source; None if the plan does not use it."""
    return plan.sources.get(source.removesuffix("/train")) if plan else None


def label_counts(source: BrowseSource) -> dict[int, int]:
    """Number of samples by label, in ascending order of labels; samples without label are not counted."""
    labels = source.labels()
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def exact_duplicates(source: BrowseSource, reader: Reader) -> list[list[SampleRef]]:
    """Groups of samples whose encoded images have equal bytes, largest group first.

    CRC-32 and size select the candidates, whose bytes are read and compared by SHA-256: among a million images, about a hundred
    pairs share a CRC-32 by chance.
    """
    hashes = _hashes(source)
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    candidates = samples_at(source, np.unique(order[np.concatenate([same, same + 1])]))
    by_digest: dict[str, list[SampleRef]] = {}
    for first in range(0, len(candidates), 256):
        batch = candidates[first : first + 256]
        for sample, digest in zip(batch, reader.each(source, batch, sha256), strict=True):
            if isinstance(digest, str):
                by_digest.setdefault(digest, []).append(sample)
    return sorted((group for group in by_digest.values() if len(group) > 1), key=lambda group: (-len(group), group))


def shared_images(sources: Mapping[str, BrowseSource], reader: Reader) -> dict[tuple[str, str], tuple[int, str]]:
    """Exact copies across sources: (source, earlier source) → images of the first that the second has, and a key of one.

    Encoded bytes are compared, as in `exact_duplicates`. Sources of one run or set have one encoding.
    """
    names = list(sources)
    hashes = {name: _hashes(source) for name, source in sources.items()}
    digests: dict[str, dict[str, SampleRef]] = {}
    counts: dict[tuple[str, str], tuple[int, str]] = {}
    for name, source in sources.items():
        others = np.concatenate([np.empty(0, np.int64), *[hashes[other] for other in names if other != name]])
        candidates = samples_at(source, np.flatnonzero(np.isin(hashes[name], others)))
        mine: dict[str, SampleRef] = {}
        for first in range(0, len(candidates), 256):
            batch = candidates[first : first + 256]
            for sample, digest in zip(batch, reader.each(source, batch, sha256), strict=True):
                if not isinstance(digest, str):
                    continue
                mine[digest] = sample
                for other, known in digests.items():
                    if digest in known:
                        key = source.columns(sample.shard).keys[sample.number]
                        count, example = counts.get((name, other), (0, key))
                        counts[name, other] = (count + 1, example)
        digests[name] = mine
    return counts


def _hashes(source: BrowseSource) -> Integers:
    """CRC-32 and size of every encoded image of the known shards, as one number."""
    columns = [source.columns(shard) for shard in range(len(source.known))]
    return np.concatenate([np.empty(0, np.int64), *[(one.crc32s << 31) ^ one.sizes_bytes for one in columns]])
