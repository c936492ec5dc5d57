"""litdata: chunks of its own format, shuffled within."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, REAL_SHARE, SHARD_IMAGES, SOURCES, batch_sizes, decode, encoded, once

PACKAGE = "litdata"
IMPORTS = ("litdata",)
CACHED = {"png": "chunks of PNG, decoded by PIL; Combined, shuffle", "raw": "chunks of raw bytes; Combined, shuffle"}
EPOCH = {"pil": "local disk, chunks of PNG", "raw": "local disk, chunks of raw bytes"}
SHUFFLES = {"shuffle": "shuffle=True"}


def write(folder: str) -> None:
    def sets(to: Path) -> None:
        for source in SOURCES:
            for variant in ("png", "raw"):
                _write_chunks(to / f"{source}-{variant}", encoded(Path(folder), source, variant), SHARD_IMAGES)

    once(Path(folder) / "litdata", sets)


def _write_chunks(to: Path, samples: Iterator[Any], chunk_size: int) -> None:
    """What `litdata.optimize` does in its worker processes."""
    from litdata.streaming.writer import BinaryWriter

    to.mkdir(parents=True)
    writer = BinaryWriter(str(to), chunk_size=chunk_size)
    for number, sample in enumerate(samples):
        writer.add_item(number, sample)
    writer.done()
    writer.merge()


def cached(folder: Path, variant: str) -> Iterator[int]:
    from litdata import CombinedStreamingDataset, StreamingDataset

    datasets = [StreamingDataset(str(folder / "litdata" / f"{source}-{variant}"), shuffle=True) for source in SOURCES]
    mixed = CombinedStreamingDataset(datasets, weights=(REAL_SHARE, 1 - REAL_SHARE), iterate_over_all=False)
    yield from batch_sizes(decode(data, variant) for data in mixed)


def first_epoch(uri: str, variant: str, scratch: Path) -> Iterator[int]:
    """From local disk: its fast S3 client refuses plain http."""
    from litdata import StreamingDataset

    stored = {"pil": "png"}.get(variant, variant)
    yield from batch_sizes(decode(data, variant) for data in StreamingDataset(f"{uri}/litdata/generated-{stored}"))


def shard_numbers(variant: str, folder: Path) -> Iterator[Any]:
    from litdata import StreamingDataset

    chunks = once(folder / "litdata-numbers", lambda to: _write_chunks(to / "chunks", iter(range(100_000)), 1000))
    shuffled = [int(number) // 1000 for number in StreamingDataset(str(chunks / "chunks"), shuffle=True)]
    for first in range(0, len(shuffled) - BATCH + 1, BATCH):
        yield np.array(shuffled[first : first + BATCH])


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """Its own mixing over two endless sources; it draws from one seed on every rank."""
    from litdata.streaming.combined import _CombinedDatasetIterator

    from benchmarks.peers.webdataset import Endless

    counts = []
    for _ in range(world):
        weights = [REAL_SHARE, 1 - REAL_SHARE]
        samples = _CombinedDatasetIterator([Endless(0), Endless(1)], 42, weights, False, None, batch // world, "stratified")
        counts.append([sum(next(samples) == 0 for _ in range(batch // world)) for _ in range(batches)])
    return np.transpose(counts).tolist()
