"""Reads encoded images of single samples: coalesces adjacent ranges, verifies each CRC-32, and caches recent images."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from adainf.browse.catalog import SampleRef
from adainf.browse.lru import LruCache
from adainf.browse.sources import MAX_IMAGE_BYTES, BrowseSource, Columns
from adainf.errors import AdaInfError, BadInput
from adainf.storage import NotFound

MAX_GAP_BYTES = 4096
"""Maximum gap between two images of one read: reading it costs less than another request."""
MAX_RANGE_BYTES = 8 * 2**20
_MAX_CONCURRENT_READS = 8


class Unreadable(NamedTuple):
    """The result for a sample that cannot be read, with the reason."""

    reason: str


ReadResult = bytes | Unreadable


class Reader:
    """Reads samples for all viewers. Thread-safe."""

    def __init__(self, cache_bytes: int = 64_000_000) -> None:
        self._cache: LruCache[bytes] = LruCache(cache_bytes)
        self._pool = ThreadPoolExecutor(_MAX_CONCURRENT_READS, "ranges")

    def read(self, source: BrowseSource, samples: Sequence[SampleRef]) -> list[ReadResult]:
        """One result per sample; a fault of a sample, its shard or its index gives `Unreadable`."""
        found: dict[SampleRef, ReadResult] = {}
        jobs = []
        for shard in sorted({sample.shard for sample in samples}):
            numbers = sorted({sample.number for sample in samples if sample.shard == shard})
            try:
                columns = source.columns(shard)
            except AdaInfError as error:
                found |= {SampleRef(shard, number): Unreadable(str(error)) for number in numbers}
                continue
            missing = []
            for number in numbers:
                sample = SampleRef(shard, number)
                cached = self._cache.get((source.name, source.digest, sample))
                if cached is not None:
                    found[sample] = cached
                elif number >= len(columns):
                    found[sample] = Unreadable(f"the shard has {len(columns)} samples, no sample {number}")
                elif columns.sizes_bytes[number] > MAX_IMAGE_BYTES:
                    found[sample] = Unreadable(f"the image is too large to show ({columns.sizes_bytes[number]:,} bytes)")
                else:
                    missing.append(number)
            jobs += [(shard, columns, numbers) for numbers in coalesce(columns, missing)]
        for (shard, _, numbers), images in zip(jobs, self._pool.map(lambda job: _fetch(source, *job), jobs), strict=True):
            for number, image in zip(numbers, images, strict=True):
                found[SampleRef(shard, number)] = image
                if isinstance(image, bytes):
                    self._cache.put((source.name, source.digest, SampleRef(shard, number)), image, len(image))
        return [found[sample] for sample in samples]

    def read_one(self, source: BrowseSource, sample: SampleRef) -> bytes:
        """One encoded image. Raises `BadInput` if the sample cannot be read."""
        (image,) = self.read(source, [sample])
        if isinstance(image, Unreadable):
            raise BadInput(f"{source.locate(sample.shard)}, sample {sample.number}: {image.reason}")
        return image


def coalesce(columns: Columns, numbers: Sequence[int]) -> list[list[int]]:
    """Group samples into reads: adjacent samples, with gaps of at most `MAX_GAP_BYTES`, share a read."""
    found: list[list[int]] = []
    start = end = 0
    for number in sorted(numbers, key=lambda number: int(columns.offsets[number])):
        at, after = int(columns.offsets[number]), int(columns.offsets[number] + columns.sizes_bytes[number])
        if found and at - end <= MAX_GAP_BYTES and after - start <= MAX_RANGE_BYTES:
            found[-1].append(number)
        else:
            found.append([number])
            start = at
        end = max(end, after) if len(found[-1]) > 1 else after
    return found


def _fetch(source: BrowseSource, shard: int, columns: Columns, numbers: list[int]) -> list[ReadResult]:
    offsets, sizes = columns.offsets[numbers], columns.sizes_bytes[numbers]
    start, end = int(offsets.min()), int((offsets + sizes).max())
    try:
        data = source.run.store.get_range(source.tar_keys[shard], start, end - start)
    except NotFound:
        return [Unreadable("its shard is missing")] * len(numbers)
    except ValueError:
        return [Unreadable("its shard is truncated, or is not the one that was indexed")] * len(numbers)
    except AdaInfError as error:
        return [Unreadable(str(error))] * len(numbers)
    images: list[ReadResult] = []
    for number, at, size in zip(numbers, (offsets - start).tolist(), sizes.tolist(), strict=True):
        image = data[at : at + size]
        intact = zlib.crc32(image) == columns.crc32s[number]
        images.append(image if intact else Unreadable("its CRC-32 does not match the index"))
    return images
