"""Our own stream."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, SHARD_IMAGES, SOURCES, once, write_ours

PACKAGE = "adainf"
IMPORTS = ("adainf.shards", "adainf.storage.s3.store")
CACHED = {"": "node cache of decoded pixels, exact mix, whole permutation"}
EPOCH = {"pil": "S3, PNG of PIL", "stored": "S3, stored PNG"}
SHUFFLES = {"cached": "no window", "windowed": "window of 32 shards"}


def opened(uris: dict[str, str], real_weight: float = 1.0, **options: Any) -> Any:
    """A stream over sources by name, seed 0; the weight of a generated image is 1."""
    from adainf.shards import Source, open_stream

    weights = {"real": real_weight}
    return open_stream({name: Source(uri, weight=weights.get(name, 1.0)) for name, uri in uris.items()}, seed=0, **options)


def mixed(uri: str | Path, **options: Any) -> Any:
    """A stream over the sources ``uri/real`` and ``uri/generated``."""
    return opened({source: f"{uri}/{source}" for source in SOURCES}, **options)


def prefetch(uri: str, cache: str) -> None:
    """Prefetch both sources into the node cache (the task of a child process)."""
    with mixed(uri, global_batch=BATCH, cache=Path(cache)) as stream:
        stream.wait_until_filled()


def write(folder: str) -> None:
    """Write both sources to a folder, and prefetch them into its node cache."""

    def sets(to: Path) -> None:
        for source in SOURCES:
            write_ours(str(to / source), np.load(f"{folder}/{source}.npy", mmap_mode="r"), SHARD_IMAGES)

    prefetch(str(once(Path(folder) / "ours", sets)), f"{folder}/cache")


def cached(folder: Path, variant: str) -> Iterator[int]:
    with mixed(folder / "ours", global_batch=BATCH, cache=folder / "cache") as stream:
        for batch in stream:
            yield len(batch.images)


def first_epoch(uri: str, variant: str, scratch: Path) -> Iterator[int]:
    """The stream is infinite: its first epoch is as many full batches as the set holds."""
    from adainf.shards.format.folder import ShardFolder

    images = sum(split.images for split in ShardFolder.open(f"{uri}/{variant}").shards.splits.values())
    with opened({"generated": f"{uri}/{variant}"}, global_batch=BATCH, cache=scratch / "cache") as stream:
        for batch in itertools.islice(stream, images // BATCH):
            yield len(batch.images)


def sample_ids(uri: str, scratch: Path) -> Iterator[object]:
    """One epoch of 10,000 samples."""
    with opened({"generated": uri}, global_batch=500, cache=scratch / "cache") as stream:
        for batch in itertools.islice(stream, 20):
            yield from batch.indices.tolist()


def shard_numbers(variant: str, folder: Path) -> Iterator[Any]:
    window_shards = 32 if variant == "windowed" else None
    with _planned({"generated": f"{folder}/generated"}, global_batch=BATCH, window_shards=window_shards) as stream:
        for step in range(100_000 // BATCH):
            yield stream.plan(step)[1] // 1000


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """5,000 real images of weight 10 beside 100,000 generated ones."""
    uris = {source: f"{folder}/{source}" for source in SOURCES}
    with _planned(uris, real_weight=10.0, global_batch=batch, rank=0, world=world) as stream:
        return [[int((stream.plan(step, rank)[0] == 0).sum()) for rank in range(world)] for step in range(batches)]


@contextmanager
def _planned(uris: dict[str, str], **options: Any) -> Iterator[Any]:
    """A stream of which only the plan is used, no image."""
    with tempfile.TemporaryDirectory() as scratch, opened(uris, cache=Path(scratch), **options) as stream:
        yield stream
