"""Encoded images of single samples by range reads: neighbours in one read, each checked by its CRC-32, the last ones kept."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from adainf.browse.catalog import Place
from adainf.browse.lru import Lru
from adainf.browse.sources import Columns, Source
from adainf.errors import AdaInfError, BadInput
from adainf.storage import NotFound

MOST_IMAGE_BYTES = 64 * 2**20
READ_THROUGH_BYTES = 4096
"""A gap between two images that is read with them: less than what a request costs."""
MOST_RANGE_BYTES = 8 * 2**20
_RANGES_AT_ONCE = 8


class Problem(NamedTuple):
    """Why a sample cannot be shown."""

    reason: str


Encoded = bytes | Problem


class Reader:
    """Reads samples for all viewers. Safe among threads."""

    def __init__(self, cache_bytes: int = 64_000_000) -> None:
        self._cache: Lru[bytes] = Lru(cache_bytes)
        self._pool = ThreadPoolExecutor(_RANGES_AT_ONCE, "ranges")

    def read(self, source: Source, places: Sequence[Place]) -> list[Encoded]:
        """One for each place; what is wrong with a sample, its shard or its index is a `Problem` of its own."""
        found: dict[Place, Encoded] = {}
        jobs = []
        for shard in sorted({place.shard for place in places}):
            numbers = sorted({place.number for place in places if place.shard == shard})
            try:
                columns = source.columns(shard)
            except AdaInfError as error:
                found |= {Place(shard, number): Problem(str(error)) for number in numbers}
                continue
            wanted = []
            for number in numbers:
                place = Place(shard, number)
                held = self._cache.get((source.name, source.digest, place))
                if held is not None:
                    found[place] = held
                elif number >= len(columns):
                    found[place] = Problem(f"the shard has {len(columns)} samples, no number {number}")
                elif columns.sizes_bytes[number] > MOST_IMAGE_BYTES:
                    found[place] = Problem(f"{columns.sizes_bytes[number]:,} bytes are too many to show")
                else:
                    wanted.append(number)
            jobs += [(shard, columns, numbers) for numbers in ranges(columns, wanted)]
        for (shard, _, numbers), images in zip(jobs, self._pool.map(lambda job: _fetch(source, *job), jobs), strict=True):
            for number, image in zip(numbers, images, strict=True):
                found[Place(shard, number)] = image
                if isinstance(image, bytes):
                    self._cache.put((source.name, source.digest, Place(shard, number)), image, len(image))
        return [found[place] for place in places]

    def one(self, source: Source, place: Place) -> bytes:
        """Raises `BadInput` where the sample cannot be read."""
        (image,) = self.read(source, [place])
        if isinstance(image, Problem):
            raise BadInput(f"{source.locate(place.shard)}, sample {place.number}: {image.reason}")
        return image


def ranges(columns: Columns, numbers: Sequence[int]) -> list[list[int]]:
    """The samples of each read: those that lie next to each other, but for small gaps."""
    found: list[list[int]] = []
    start = end = 0
    for number in sorted(numbers, key=lambda number: int(columns.offsets[number])):
        at, after = int(columns.offsets[number]), int(columns.offsets[number] + columns.sizes_bytes[number])
        if found and at - end <= READ_THROUGH_BYTES and after - start <= MOST_RANGE_BYTES:
            found[-1].append(number)
        else:
            found.append([number])
            start = at
        end = max(end, after) if len(found[-1]) > 1 else after
    return found


def _fetch(source: Source, shard: int, columns: Columns, numbers: list[int]) -> list[Encoded]:
    offsets, sizes = columns.offsets[numbers], columns.sizes_bytes[numbers]
    start, end = int(offsets.min()), int((offsets + sizes).max())
    try:
        data = source.run.store.get_range(source.tar_keys[shard], start, end - start)
    except NotFound:
        return [Problem("its shard is missing")] * len(numbers)
    except ValueError:
        return [Problem("its shard is cut, or another than the one that was indexed")] * len(numbers)
    except AdaInfError as error:
        return [Problem(str(error))] * len(numbers)
    images: list[Encoded] = []
    for number, at, size in zip(numbers, (offsets - start).tolist(), sizes.tolist(), strict=True):
        image = data[at : at + size]
        whole = zlib.crc32(image) == columns.crc32s[number]
        images.append(image if whole else Problem("its bytes are not those of its index"))
    return images
