"""webdataset: tars in order, a shuffle buffer, sources mixed by independent draws."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, REAL_SHARE, SOURCES, batch_sizes, decode

PACKAGE = "webdataset"
IMPORTS = ("webdataset", "boto3")
CACHED = {"png": "tars of PNG, decoded by PIL; RandomMix, shuffle(1000)", "raw": "tars of raw bytes; RandomMix, shuffle(1000)"}
EPOCH = {"pil": "S3 by boto3, PNG of PIL", "stored": "S3 by boto3, stored PNG by PIL", "raw": "S3 by boto3, raw bytes"}
ON_S3 = "tars"
SHUFFLES = {"shuffle_1000": "shards, then shuffle(1000)", "shuffle_5000": "shards, then shuffle(5000)"}


def write(folder: str) -> None:
    from benchmarks.data import tars

    tars(Path(folder))


def _decoded(urls: list[str], variant: str, shuffle: int) -> Any:
    import webdataset

    suffix = "bin" if variant == "raw" else "png"
    dataset = webdataset.WebDataset(urls, shardshuffle=100 if shuffle else False).shuffle(shuffle)
    return dataset.map(lambda sample: decode(sample[suffix], variant))


def cached(folder: Path, variant: str) -> Iterator[int]:
    import webdataset

    urls = {source: sorted(map(str, (folder / "tars").glob(f"{source}-{variant}-*.tar"))) for source in SOURCES}
    sources = [_decoded(urls[source], variant, 1000).repeat() for source in SOURCES]
    return batch_sizes(webdataset.RandomMix(sources, [REAL_SHARE, 1 - REAL_SHARE]))


def first_epoch(uri: str, variant: str, scratch: Path) -> Iterator[int]:
    wanted = {"pil": "generated-png-", "stored": "generated-stored-", "raw": "generated-raw-"}[variant]
    yield from batch_sizes(_decoded(_on_s3(uri, wanted), variant, 0))


def sample_ids(uri: str, scratch: Path) -> Iterator[object]:
    import webdataset

    for sample in webdataset.WebDataset(_on_s3(uri, ""), shardshuffle=False):
        yield sample["__key__"]


def _on_s3(uri: str, wanted: str) -> list[str]:
    """The URLs of the tars under `uri`, and an opener for them: webdataset has none of its own."""
    import boto3
    import webdataset
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": 5}, read_timeout=10)
    client = boto3.client("s3", config=config)

    def body(url: str, mode: str = "rb", bufsize: int = 8192) -> io.BytesIO:
        bucket, key = url.removeprefix("s3://").split("/", 1)
        return io.BytesIO(client.get_object(Bucket=bucket, Key=key)["Body"].read())  # whole: less CPU than piece by piece

    webdataset.gopen_schemes["s3"] = body
    bucket, prefix = uri.removeprefix("s3://").split("/", 1)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    return [f"s3://{bucket}/{key}" for key in keys if key.endswith(".tar") and wanted in key]


def shard_numbers(variant: str, folder: Path) -> Iterator[Any]:
    """Its own shuffle filter over the numbers of shards in random order."""
    import webdataset

    shards = random.Random(0).sample(range(100), 100)
    numbers = [shard for shard in shards for _ in range(1000)]
    shuffled = list(webdataset.filters.shuffle(int(variant.removeprefix("shuffle_")))(iter(numbers)))
    for first in range(0, len(shuffled) - BATCH + 1, BATCH):
        yield np.array(shuffled[first : first + BATCH])


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """RandomMix of two endless sources; every rank with a seed of its own, the best that a launcher can do."""
    import webdataset

    mix = webdataset.RandomMix([Endless(0), Endless(1)], [REAL_SHARE, 1 - REAL_SHARE])
    counts = []
    for rank in range(world):
        random.seed(rank)
        samples = iter(mix)
        counts.append([sum(next(samples) == 0 for _ in range(batch // world)) for _ in range(batches)])
    return np.transpose(counts).tolist()


class Endless:
    """A source that gives its number for ever."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self.number
