"""Writing the shards of one split, so that a writer that dies is simply started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from adainf.artifacts import Output, Run, sha256
from adainf.exitcodes import BadInput
from adainf.shards.manifest import Shard, ShardIndex, Split
from adainf.shards.tar import Sample, encode_shard
from adainf.storage import NotFound


class Images(Protocol):
    """Samples by index, made or decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def write_split(
    run: Run,
    folder: str,
    split: str,
    count: int,
    shard_images: int,
    samples: Callable[[range], list[Sample]],
    advance: Callable[[int], None] = lambda images: None,
) -> Split:
    """Write samples 0 … `count` - 1 as ``folder/split-000000.tar`` … with their indexes, and describe them.

    `samples` gives those of a range of indices; `advance` is told the images done. A shard that is there
    already, whole and with its index (which is written after it), is not made again.
    """
    shards: list[Shard] = []
    sums = np.zeros(3, np.int64)
    pixels = 0
    labelled = count > 0
    for number, first in enumerate(range(0, count, shard_images)):
        indices = range(first, min(first + shard_images, count))
        index, output = _write_shard(run, f"{folder}/{split}-{number:06d}", indices, samples)
        shards.append(Shard(tar=index.tar, index=output, images=len(indices)))
        sums += index.channel_sums
        pixels += len(indices) * index.height_px * index.width_px
        labelled = labelled and all(sample.label is not None for sample in index.samples)
        advance(len(indices))
    red, green, blue = (sums / max(pixels, 1)).round(4).tolist()
    return Split(images=count, labelled=labelled, channel_means=(red, green, blue), shards=shards)


def _write_shard(run: Run, stem: str, indices: range, samples: Callable[[range], list[Sample]]) -> tuple[ShardIndex, Output]:
    found = _whole_shard(run, stem, indices)
    if found is not None:
        return found
    wanted = samples(indices)
    encoded = encode_shard(indices.start, wanted)
    index = ShardIndex(
        tar=run.write(f"{stem}.tar", encoded.data),
        height_px=wanted[0].image.shape[0],
        width_px=wanted[0].image.shape[1],
        pixels_sha256=encoded.pixels_sha256,
        channel_sums=encoded.channel_sums,
        samples=encoded.samples,
    )
    return index, run.write(f"{stem}.json", index.to_json())


def _whole_shard(run: Run, stem: str, indices: range) -> tuple[ShardIndex, Output] | None:
    """The shard of an earlier start, if it is there, whole and the one that belongs here; else it is made again."""
    key = f"{stem}.json"
    try:
        data = run.store.get(key)
        index = run.parse(ShardIndex, key, data)
        if index.tar.key != f"{stem}.tar" or [int(sample.key) for sample in index.samples] != list(indices):
            return None
        run.read(index.tar)
    except (NotFound, BadInput, ValueError):
        return None
    return index, Output(key=key, size_bytes=len(data), sha256=sha256(data))
