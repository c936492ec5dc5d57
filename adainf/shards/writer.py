"""Writing the shards of one split, so that a writer that dies is simply started again."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from adainf.artifacts import Output, Run, sha256
from adainf.exitcodes import BadInput
from adainf.shards.manifest import Channels, PixelFacts, Shard, ShardIndex, Split, index_key
from adainf.shards.png import Pixels
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
    facts: list[PixelFacts] = []
    labelled = count > 0
    for number, first in enumerate(range(0, count, shard_images)):
        indices = range(first, min(first + shard_images, count))
        shard, index = _write_shard(run, folder, f"{split}-{number:06d}.tar", indices, samples)
        shards.append(shard)
        facts += [index.pixels] if index.pixels else []
        labelled = labelled and min(index.labels) >= 0
        advance(len(indices))
    return Split.of(shards, labelled, *channel_moments(facts, len(shards)))


def channel_moments(facts: list[PixelFacts], shards: int) -> tuple[Channels | None, Channels | None]:
    """Means and standard deviations of R, G and B over so many shards, 0..255; None where not all of them have facts."""
    if len(facts) < shards or not facts:
        return None, None
    pixels = sum(fact.images * fact.height_px * fact.width_px for fact in facts)
    means = np.sum([fact.channel_sums for fact in facts], axis=0) / pixels
    squares = np.sum([fact.channel_square_sums for fact in facts], axis=0) / pixels
    stds = np.sqrt(np.maximum(squares - means**2, 0))
    red, green, blue = zip(means.round(4).tolist(), stds.round(4).tolist(), strict=True)
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def _write_shard(
    run: Run, folder: str, key: str, indices: range, samples: Callable[[range], list[Sample]]
) -> tuple[Shard, ShardIndex]:
    found = _whole_shard(run, folder, key, indices)
    if found is not None:
        return found
    wanted = samples(indices)
    encoded = encode_shard(indices.start, wanted)
    run.write(f"{folder}/{key}", encoded.data)
    index = ShardIndex(
        tar=Output(key=key, size_bytes=len(encoded.data), sha256=sha256(encoded.data)),
        keys=encoded.keys,
        image_offsets=encoded.image_offsets,
        image_sizes_bytes=[len(image) for image in encoded.images],
        image_crc32s=[zlib.crc32(image) for image in encoded.images],
        labels=[-1 if sample.label is None else sample.label for sample in wanted],
        texts=[sample.text for sample in wanted],
        pixels=pixel_facts(sample.image for sample in wanted),
    )
    data = index.to_json()
    run.write(f"{folder}/{index_key(key)}", data)
    return describe(index, data), index


def pixel_facts(images: Iterable[Pixels]) -> PixelFacts | None:
    """None where images differ in size, or there are none."""
    pixels = hashlib.sha256()
    shapes: set[tuple[int, ...]] = set()
    count = 0
    sums, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for image in images:
        shapes.add(image.shape)
        count += 1
        pixels.update(np.ascontiguousarray(image).data)
        values = image.reshape(-1, 3).astype(np.int64)
        sums += values.sum(0)
        squares += (values * values).sum(0)
    if len(shapes) != 1:
        return None
    height, width, _ = shapes.pop()
    (red, green, blue), (red2, green2, blue2) = sums.tolist(), squares.tolist()
    return PixelFacts(
        images=count,
        height_px=height,
        width_px=width,
        sha256=pixels.hexdigest(),
        channel_sums=(red, green, blue),
        channel_square_sums=(red2, green2, blue2),
    )


def describe(index: ShardIndex, data: bytes) -> Shard:
    """The shard's place in its split; `data` is its index as an object."""
    output = Output(key=index_key(index.tar.key), size_bytes=len(data), sha256=sha256(data))
    return Shard(len(index.keys), index.tar, output)


def _whole_shard(run: Run, folder: str, key: str, indices: range) -> tuple[Shard, ShardIndex] | None:
    """The shard of an earlier start, if it is there, whole and the one that belongs here; else it is made again."""
    try:
        data = run.store.get(f"{folder}/{index_key(key)}")
        index = run.parse(ShardIndex, f"{folder}/{index_key(key)}", data)
        if index.tar.key != key or [int(name) for name in index.keys] != list(indices):
            return None
        run.read(index.tar.model_copy(update={"key": f"{folder}/{key}"}))
    except (NotFound, BadInput, ValueError):
        return None
    return describe(index, data), index
