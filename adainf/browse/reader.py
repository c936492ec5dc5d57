"""Reads encoded images of single samples: coalesces adjacent ranges, verifies each CRC-32, and bounds the bytes in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from adainf.browse.budget import Budget
from adainf.browse.catalog import SampleRef
from adainf.browse.lru import LruCache
from adainf.browse.sources import MAX_IMAGE_BYTES, BrowseSource, Columns
from adainf.errors import AdaInfError, BadInput
from adainf.storage import NotFound

MAX_GAP_BYTES = 4096
"""Maximum gap between two images of one read: reading it costs less than another request."""
MAX_RANGE_BYTES = 8 * 2**20
MAX_BYTES_IN_FLIGHT = 64 * 2**20
"""Of encoded images that are read and used, over all requests of a `Reader`."""
_MAX_CONCURRENT_READS = 8


class Unreadable(NamedTuple):
    """The result for a sample that cannot be read, with the reason."""

    reason: str


ReadResult = bytes | Unreadable
Result = TypeVar("Result")


class Reader:
    """Reads samples for all viewers. Thread-safe."""

    def __init__(self, cache_bytes: int = 24_000_000, max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT) -> None:
        """`cache_bytes`: of the images that `read_one` returned."""
        self._cache: LruCache[bytes] = LruCache(cache_bytes)
        self._pool = ThreadPoolExecutor(_MAX_CONCURRENT_READS, "ranges")
        self.budget = Budget(max_bytes_in_flight)

    def read(self, source: BrowseSource, samples: Sequence[SampleRef]) -> list[ReadResult]:
        """The encoded images; all of them are in memory at once. See `each`."""
        return self.each(source, samples, bytes)

    def each(
        self, source: BrowseSource, samples: Sequence[SampleRef], use: Callable[[bytes], Result]
    ) -> list[Result | Unreadable]:
        """`use` of each encoded image, in several threads. The bytes are released after it.

        One result per sample: a fault of a sample, its shard or its index, or a `ValueError` of `use`, gives `Unreadable`.
        """
        found: dict[SampleRef, Result | Unreadable] = {}
        jobs: list[tuple[int, Columns, list[int]]] = []
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
                if number >= len(columns):
                    found[sample] = Unreadable(f"the shard has {len(columns)} samples, no sample {number}")
                elif columns.sizes_bytes[number] > MAX_IMAGE_BYTES:
                    found[sample] = Unreadable(f"the image is too large to show ({columns.sizes_bytes[number]:,} bytes)")
                else:
                    missing.append(number)
            jobs += [(shard, columns, numbers) for numbers in coalesce(columns, missing)]

        def run(job: tuple[int, Columns, list[int]]) -> list[Result | Unreadable]:
            shard, columns, numbers = job
            return self._use(source, shard, columns, numbers, use)

        for (shard, _, numbers), used in zip(jobs, self._pool.map(run, jobs), strict=True):
            found |= {SampleRef(shard, number): result for number, result in zip(numbers, used, strict=True)}
        return [found[sample] for sample in samples]

    def read_one(self, source: BrowseSource, sample: SampleRef) -> bytes:
        """One encoded image. Raises `BadInput` if the sample cannot be read."""
        cached = self._cache.get((source.name, source.digest, sample))
        if cached is not None:
            return cached
        (image,) = self.read(source, [sample])
        if isinstance(image, Unreadable):
            raise BadInput(f"{source.locate(sample.shard)}, sample {sample.number}: {image.reason}")
        self._cache.put((source.name, source.digest, sample), image, len(image))
        return image

    def _use(
        self, source: BrowseSource, shard: int, columns: Columns, numbers: list[int], use: Callable[[bytes], Result]
    ) -> list[Result | Unreadable]:
        offsets, sizes = columns.offsets[numbers], columns.sizes_bytes[numbers]
        start, end = int(offsets.min()), int((offsets + sizes).max())
        with self.budget.take(2 * (end - start)):  # the range, and a copy of one image or all
            data = _fetch(source, shard, start, end - start)
            if isinstance(data, Unreadable):
                return [data] * len(numbers)
            results: list[Result | Unreadable] = []
            for number, at, size in zip(numbers, (offsets - start).tolist(), sizes.tolist(), strict=True):
                image = data[at : at + size]
                if zlib.crc32(image) != columns.crc32s[number]:
                    results.append(Unreadable("its CRC-32 does not match the index"))
                    continue
                try:
                    results.append(use(image))
                except ValueError as error:
                    results.append(Unreadable(str(error)))
            return results


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


def _fetch(source: BrowseSource, shard: int, start: int, size: int) -> ReadResult:
    try:
        return source.run.store.get_range(source.tar_keys[shard], start, size)
    except NotFound:
        return Unreadable("its shard is missing")
    except ValueError:
        return Unreadable("its shard is truncated, or is not the one that was indexed")
    except AdaInfError as error:
        return Unreadable(str(error))
