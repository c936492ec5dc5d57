"""Decode a shard, and detect a corrupt shard or sample.

The result depends only on the bytes, the manifest and the policy, so every process of every node reaches the same one.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Container
from contextlib import nullcontext
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adainf.errors import AdaInfError, BadInput
from adainf.pipeline.records import sha256
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard
from adainf.shards.format.png import Pixels, copy_stored_pngs, decode_image
from adainf.shards.format.reading import decoding
from adainf.shards.format.samples import number_of, samples
from adainf.shards.format.scan import Buffer, members
from adainf.storage import NotFound, Store

MAX_CONCURRENT_FETCHES = 8
"""Shards that one node fetches and decodes concurrently, over all its processes."""
SMALL_BYTES = 16_384
_small_images = threading.Lock()
"""Held while images below `SMALL_BYTES` on average are decoded: decoders release the GIL for each image, and threads that
contend for it some ten thousand times a second need half as much CPU again."""
_EMPTY = np.empty((0, 0, 3), np.uint8)

Policy = Literal["fail", "quarantine"]
"""What happens at a corrupt sample: raise, or replace it with the next intact sample of its shard and record it."""


class Corruption(NamedTuple):
    """One sample that cannot be used; a line of ``quarantine.jsonl``."""

    shard: str
    key: str
    offset: int
    reason: str


class DecodedShard(NamedTuple):
    images: Pixels | list[Pixels]
    """n x H x W x 3 where all have one size."""
    labels: NDArray[np.int64]
    """n; -1 is none."""
    replacements: NDArray[np.int64]
    """n: the sample to use for each; itself where it is intact."""
    corrupt: list[Corruption]


class Entries(NamedTuple):
    """The samples of a shard, as columns."""

    keys: list[str]
    offsets: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    labels: NDArray[np.int64]


class FetchedShard(NamedTuple):
    """A shard whose images are still encoded."""

    data: Buffer
    """The tar, in a buffer of this thread that is valid until its next fetch."""
    intact: bool
    """Whether it matches the manifest; if not, its samples are located by the index."""
    entries: Entries
    problems: dict[int, str]
    """Number → reason of the samples whose CRC-32 does not match."""

    def corruptions(self, shard: Shard) -> list[Corruption]:
        """The samples with a problem; one without a key where only a header, a label or padding is corrupt."""
        keys, offsets = self.entries.keys, self.entries.offsets
        found = [Corruption(shard.tar.key, keys[n], int(offsets[n]), reason) for n, reason in sorted(self.problems.items())]
        return found if found or self.intact else [Corruption(shard.tar.key, "", -1, "corrupt outside its images")]


def decode_shard(
    folder: ShardFolder, shard: Shard, policy: Policy, size: tuple[int, int] | None, resize_px: int | None = None
) -> DecodedShard:
    """Fetch and decode a shard. `size` is the (height, width) that every image must have, None for any. `resize_px` crops
    and resizes each image to that square.

    Raises `BadInput` as `fetch_shard`, and for any image that cannot be decoded where `policy` is ``fail``.
    """
    reading, resize_px = decoding(folder.shards, resize_px)
    fetched = fetch_shard(folder, shard, policy)
    data, intact, entries, problems = fetched
    count = len(entries.keys)
    images: Pixels | list[Pixels] = [_EMPTY] * count
    if size is not None:
        images = block = np.empty((count, *size, 3), np.uint8)
        copyable = intact and resize_px is None
        if copyable and copy_stored_pngs(data, entries.offsets, entries.sizes_bytes, block):
            return DecodedShard(block, entries.labels, np.arange(count), [])
    with _small_images if len(data) < SMALL_BYTES * count else nullcontext():
        for number, span in enumerate(_spans(entries)):
            if number not in problems:
                try:
                    images[number] = fitted(decode_image(bytes(data[span]), True, reading), size, resize_px)
                except ValueError as error:
                    problems[number] = str(error)
    found = fetched.corruptions(shard)
    if found and policy == "fail":
        raise corruption_error(folder, found[0])
    return DecodedShard(images, entries.labels, replacements(folder, shard, count, problems), found)


def fetch_shard(folder: ShardFolder, shard: Shard, policy: Policy) -> FetchedShard:
    """Fetch a shard and find its samples, without decoding images.

    Raises `BadInput` for a shard that is truncated or cannot be read at all, and for one that does not match the manifest where
    `policy` is ``fail``.
    """
    data, intact = _fetch(folder, shard)
    where = folder.locate(shard.tar.key)
    if not intact:
        _check_recoverable(folder, shard, data, policy)
    # An index in place holds what its rules selected; sets that AdaInf wrote need no request for it.
    by_index = not intact or folder.shards.indexed_in_place
    entries = _entries_by_index(folder, shard) if by_index else _scan(where, shard, data)
    problems: dict[int, str] = {}
    if not intact:
        crc32s = folder.index(shard).image_crc32s
        for number, (span, crc32) in enumerate(zip(_spans(entries), crc32s, strict=True)):
            if zlib.crc32(data[span]) != crc32:
                problems[number] = "CRC-32 does not match the index"
    return FetchedShard(data, intact, entries, problems)


def corruption_error(folder: ShardFolder, corruption: Corruption) -> BadInput:
    """The error that policy ``fail`` raises."""
    sample = f"sample {corruption.key} (byte {corruption.offset}): " if corruption.key else ""
    return BadInput(
        f"{folder.locate(corruption.shard)}: {sample}{corruption.reason}; restore or recreate the shard, or set "
        "damage: quarantine to replace corrupt samples"
    )


def _fetch(folder: ShardFolder, shard: Shard) -> tuple[Buffer, bool]:
    """The bytes, and whether they match the manifest; up to three reads before they count as corrupt.

    They lie in a buffer of this thread and are valid until its next call.
    """
    store, key = folder.run.store, folder.key(shard.tar.key)
    for attempt in range(3):
        try:
            # The manifest's SHA-256 suffices at first. On a mismatch the store's own checksum detects corruption in transit.
            data = store.get(key) if attempt else read_into_buffer(store, key, shard.tar.size_bytes)
        except NotFound:
            raise BadInput(
                f"{folder.locate(shard.tar.key)} is listed in its manifest but missing; restore it or recreate the set"
            ) from None
        except AdaInfError:  # inconsistent responses; `get` may start over, as no byte has been used yet
            if attempt:
                raise
            continue
        if len(data) == shard.tar.size_bytes and sha256(data) == shard.tar.sha256:
            return data, True
    return data, False


_memory = threading.local()


def read_into_buffer(store: Store, key: str, size_bytes: int) -> memoryview:
    """The object, or its first `size_bytes` + 1 bytes where it is longer.

    The buffer is reused by each call of a thread: allocating it again takes as much CPU as the transfer.
    """
    buffer = getattr(_memory, "buffer", b"")
    if len(buffer) <= size_bytes:
        _memory.buffer = buffer = bytearray(size_bytes + 1)
    view = memoryview(buffer)[: size_bytes + 1]
    received = 0
    with store.open(key, verify=False) as file:
        while received < len(view) and (count := file.readinto(view[received:])):
            received += count
    return view[:received]


def _scan(where: str, shard: Shard, data: Buffer) -> Entries:
    try:
        found = samples(data)
        if len(found) != shard.images:
            raise ValueError(f"it holds {len(found)} samples, the manifest lists {shard.images}")
    except ValueError as error:
        raise BadInput(f"{where}: {error}; recreate the shard") from None
    return Entries(
        [sample.key for sample in found],
        np.array([sample.image.offset for sample in found]),
        np.array([sample.image.size for sample in found]),
        np.array([number_of(sample) for sample in found]),
    )


def _check_recoverable(folder: ShardFolder, shard: Shard, data: Buffer, policy: Policy) -> None:
    """Raise `BadInput` where the samples of a corrupt shard cannot be recovered, or `policy` is ``fail``."""
    where = folder.locate(shard.tar.key)
    if len(data) != shard.tar.size_bytes:
        raise BadInput(
            f"{where} is {'truncated' if len(data) < shard.tar.size_bytes else 'too long'}: {len(data):,} bytes, the "
            f"manifest lists {shard.tar.size_bytes:,}; restore or recreate the shard"
        )
    if policy == "fail":
        try:
            members(data)
            problem = "SHA-256 does not match the manifest"
        except ValueError as error:
            problem = str(error)
        raise corruption_error(folder, Corruption(shard.tar.key, "", -1, problem))


def _entries_by_index(folder: ShardFolder, shard: Shard) -> Entries:
    """The samples of a shard, located by its index. Raises `BadInput` where that is corrupt."""
    index = folder.index(shard)
    if len(index.keys) != shard.images or any(
        not 0 <= at <= at + size <= shard.tar.size_bytes
        for at, size in zip(index.image_offsets, index.image_sizes_bytes, strict=True)
    ):
        raise BadInput(f"{folder.locate(shard.index.key)} does not fit its tar and manifest; restore it or index again")
    return Entries(index.keys, np.array(index.image_offsets), np.array(index.image_sizes_bytes), np.array(index.labels))


def _spans(entries: Entries) -> list[slice]:
    return [slice(at, at + size) for at, size in zip(entries.offsets.tolist(), entries.sizes_bytes.tolist(), strict=True)]


def replacements(folder: ShardFolder, shard: Shard, count: int, problems: Container[int]) -> NDArray[np.int64]:
    """For each sample itself where it is intact, else the next intact one, cyclically. Raises `BadInput` where none is."""
    numbers = np.arange(count)
    intact = np.array([n for n in numbers.tolist() if n not in problems], np.int64)
    if not len(intact):
        raise BadInput(f"{folder.locate(shard.tar.key)}: all {count} samples are corrupt; restore or recreate the shard")
    return intact[np.searchsorted(intact, numbers) % len(intact)]


def fitted(image_HWC: Pixels, size: tuple[int, int] | None, resize_px: int | None) -> Pixels:
    """The image, `resized` if `resize_px` is given. Raises `ValueError` where its (height, width) is not `size`."""
    image = image_HWC if resize_px is None else resized(image_HWC, resize_px)
    if size is not None and image.shape[:2] != size:
        raise ValueError(f"the image is {image.shape[0]} x {image.shape[1]} px, expected {size[0]} x {size[1]}")
    return image


def resized(image_HWC: Pixels, size_px: int) -> Pixels:
    """The largest central square, scaled to `size_px` x `size_px` (Pillow's bilinear filter, which averages to shrink)."""
    height, width, _ = image_HWC.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image_HWC[top : top + side, left : left + side]
    if side == size_px:
        return square
    return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((size_px, size_px), Image.Resampling.BILINEAR))
