"""mosaicml-streaming: shards of its own format (MDS), an epoch's order planned whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, REAL_SHARE, SHARD_IMAGES, SOURCES, batch_sizes, decode, encoded, once

PACKAGE = "mosaicml-streaming"
IMPORTS = ("streaming", "boto3")
CACHED = {"png": "MDS of PNG, decoded by PIL; proportion, shuffle py1e", "raw": "MDS of raw bytes; proportion, shuffle py1e"}
EPOCH = {"pil": "S3, MDS of PNG", "raw": "S3, MDS of raw bytes"}
ON_S3 = "mds"
SHUFFLES = {"py1e": "py1e"}


def write(folder: str) -> None:
    from streaming import MDSWriter

    def sets(to: Path) -> None:
        for source in SOURCES:
            for variant, size in (("png", 2400), ("raw", 3072)):
                limit = SHARD_IMAGES * size
                with MDSWriter(out=str(to / f"{source}-{variant}"), columns={"image": "bytes"}, size_limit=limit) as writer:
                    for data in encoded(Path(folder), source, variant):
                        writer.write({"image": data})

    once(Path(folder) / "mds", sets)


def cached(folder: Path, variant: str) -> Iterator[int]:
    from streaming import Stream, StreamingDataset

    shares = {"real": REAL_SHARE, "generated": 1 - REAL_SHARE}
    streams = [Stream(local=str(folder / "mds" / f"{source}-{variant}"), proportion=share) for source, share in shares.items()]
    dataset = StreamingDataset(streams=streams, batch_size=BATCH, shuffle=True)
    while True:
        yield from batch_sizes(decode(sample["image"], variant) for sample in dataset)


def first_epoch(uri: str, variant: str, scratch: Path) -> Iterator[int]:
    from streaming import StreamingDataset

    stored = {"pil": "png"}.get(variant, variant)
    dataset = StreamingDataset(remote=f"{uri}/mds/generated-{stored}", local=str(scratch / "mds"), batch_size=BATCH)
    yield from batch_sizes(decode(sample["image"], variant) for sample in dataset)


def shard_numbers(variant: str, folder: Path) -> Iterator[Any]:
    from streaming.base.shuffle import get_shuffle

    shuffled = get_shuffle(variant, np.full(100, 1000), 1, 0, 0) // 1000
    for first in range(0, len(shuffled) - BATCH + 1, BATCH):
        yield shuffled[first : first + BATCH]


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """Batching "stratified", its exact one; the plan for `world` ranks on one node, made in one process."""
    from streaming import MDSWriter, Stream, StreamingDataset
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    samples = batch * (batches + 1)
    with tempfile.TemporaryDirectory() as scratch:
        for source, share in zip(SOURCES, (REAL_SHARE, 1 - REAL_SHARE), strict=True):
            with MDSWriter(out=f"{scratch}/{source}", columns={"number": "int"}) as writer:
                for number in range(round(samples * share)):
                    writer.write({"number": number})
        shares = {"real": REAL_SHARE, "generated": 1 - REAL_SHARE}
        streams = [Stream(local=f"{scratch}/{source}", proportion=share) for source, share in shares.items()]
        per_rank = batch // world
        dataset = StreamingDataset(streams=streams, batch_size=per_rank, batching_method="stratified", num_canonical_nodes=1)
        plan = generate_work("stratified", dataset, World(1, world, 1, 0), 0, 0)
        real = (plan >= 0) & (plan < dataset.samples_per_stream[0])
    # nodes x ranks x workers x batches x samples
    return real[0, :, 0, :batches].sum(-1).T.tolist()
