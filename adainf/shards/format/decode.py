"""One shard's bytes → its decoded images, and the verdict on what is damaged.

The verdict depends on the bytes, the manifest and the policy alone, so every process of every node comes to the same.
"""

from __future__ import annotations

import threading
import zlib
from contextlib import nullcontext
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adainf.errors import AdaInfError, BadInput
from adainf.pipeline.artifacts import sha256
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard
from adainf.shards.format.png import Pixels, copy_stored_pngs, decode_image
from adainf.shards.format.scan import Buffer, samples
from adainf.storage import NotFound, Store

SMALL_BYTES = 16_384
_small_images = threading.Lock()
"""Images below `SMALL_BYTES` on average are decoded by one thread at a time: decoders let go of the interpreter's lock for
each, and threads that take turns at it some ten thousand times a second need half as much CPU again."""
_NOTHING = np.empty((0, 0, 3), np.uint8)

Policy = Literal["fail", "quarantine"]
"""What a damaged sample does: end the command, or have the next whole one of its shard in its place and be written down."""


class Damage(NamedTuple):
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
    stand_ins: NDArray[np.int64]
    """n: the sample that is in the place of each, itself where it is whole."""
    damaged: list[Damage]


class _Entries(NamedTuple):
    keys: list[str]
    offsets: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    labels: NDArray[np.int64]


def decode_shard(
    folder: ShardFolder, shard: Shard, policy: Policy, size: tuple[int, int] | None, resize_px: int | None = None
) -> DecodedShard:
    """Fetch and decode a shard. `size` is what every image must have (height, width), None for any; `resize_px` crops and
    resizes each to that square.

    Raises `BadInput` for a shard that is cut, or cannot be read at all; for any damage where `policy` is ``fail``.
    """
    data, intact = _fetch(folder, shard)
    where = folder.locate(shard.tar.key)
    entries = _entries(where, shard, data) if intact else _salvaged(folder, shard, data, policy)
    count = len(entries.keys)
    damaged: dict[int, str] = {}
    if not intact:
        crc32s = folder.index(shard).image_crc32s
        for number, (span, crc32) in enumerate(zip(_spans(entries), crc32s, strict=True)):
            if zlib.crc32(data[span]) != crc32:
                damaged[number] = "its bytes are not those of its index"
    images: Pixels | list[Pixels] = [_NOTHING] * count
    if size is not None:
        images = block = np.empty((count, *size, 3), np.uint8)
        usual = intact and resize_px is None
        if usual and copy_stored_pngs(data, entries.offsets, entries.sizes_bytes, block):
            return DecodedShard(block, entries.labels, np.arange(count), [])
    with _small_images if len(data) < SMALL_BYTES * count else nullcontext():
        _decode_each(data, entries, images, size, resize_px, damaged)
    found = [Damage(shard.tar.key, entries.keys[n], int(entries.offsets[n]), reason) for n, reason in sorted(damaged.items())]
    if not (intact or found):  # a header, a label or padding, all of which the index knows
        found = [Damage(shard.tar.key, "", -1, "damaged outside of its images")]
    if found and policy == "fail":
        raise damage_error(folder, found[0])
    if len(damaged) == count:
        raise BadInput(f"{where}: none of its {count} samples is whole; make the shard again")
    return DecodedShard(images, entries.labels, _stand_ins(count, damaged), found)


def damage_error(folder: ShardFolder, damage: Damage) -> BadInput:
    """The error that policy ``fail`` ends with."""
    sample = f"sample {damage.key} (byte {damage.offset}): " if damage.key else ""
    return BadInput(
        f"{folder.locate(damage.shard)}: {sample}{damage.reason}; restore or make the shard again (a stream can "
        "go on without what is damaged: damage: quarantine)"
    )


def _fetch(folder: ShardFolder, shard: Shard) -> tuple[Buffer, bool]:
    """The bytes, and whether they are those of the manifest; read again before they are called damaged.

    They lie in memory of this thread, until its next call.
    """
    store, key = folder.run.store, folder.key(shard.tar.key)
    for attempt in range(3):
        try:
            # The manifest's sum does at first; the store's own tells damage on the way from damage that is there.
            data = store.get(key) if attempt else read_again(store, key, shard.tar.size_bytes)
        except NotFound:
            raise BadInput(
                f"{folder.locate(shard.tar.key)} is named by its manifest but missing; restore it, or make the set again"
            ) from None
        except AdaInfError:  # a store that contradicts itself half way: `get` may begin again, as nobody has seen any byte
            if attempt:
                raise
            continue
        if len(data) == shard.tar.size_bytes and sha256(data) == shard.tar.sha256:
            return data, True
    return data, False


_memory = threading.local()


def read_again(store: Store, key: str, size_bytes: int) -> memoryview:
    """The object, or its first bytes where it is longer. Into memory that is used again: to get it anew from the system takes
    as much CPU as the transfer."""
    buffer = getattr(_memory, "buffer", b"")
    if len(buffer) <= size_bytes:
        _memory.buffer = buffer = bytearray(size_bytes + 1)
    view = memoryview(buffer)[: size_bytes + 1]
    arrived = 0
    with store.open(key, verify=False) as file:
        while arrived < len(view) and (count := file.readinto(view[arrived:])):
            arrived += count
    return view[:arrived]


def _entries(where: str, shard: Shard, data: Buffer) -> _Entries:
    try:
        found = samples(data)
        if len(found) != shard.images:
            raise ValueError(f"it holds {len(found)} samples, its manifest says {shard.images}")
    except ValueError as error:
        raise BadInput(f"{where}: {error}; make the shard again") from None
    return _Entries(
        [sample.key for sample in found],
        np.array([sample.image.offset for sample in found]),
        np.array([sample.image.size for sample in found]),
        np.array([-1 if sample.label is None else sample.label for sample in found]),
    )


def _salvaged(folder: ShardFolder, shard: Shard, data: Buffer, policy: Policy) -> _Entries:
    """Where the samples of a damaged shard are, by its index. Raises `BadInput` where it is not to be salvaged."""
    where = folder.locate(shard.tar.key)
    if len(data) != shard.tar.size_bytes:
        raise BadInput(
            f"{where} is {'cut' if len(data) < shard.tar.size_bytes else 'another'}: {len(data):,} bytes where its manifest "
            f"says {shard.tar.size_bytes:,}; restore it, or make the shard again"
        )
    if policy == "fail":
        try:
            samples(data)
            problem = "its bytes are not those of its manifest"
        except ValueError as error:
            problem = str(error)
        raise damage_error(folder, Damage(shard.tar.key, "", -1, problem))
    index = folder.index(shard)
    return _Entries(index.keys, np.array(index.image_offsets), np.array(index.image_sizes_bytes), np.array(index.labels))


def _decode_each(
    data: Buffer,
    entries: _Entries,
    images: Pixels | list[Pixels],
    size: tuple[int, int] | None,
    resize_px: int | None,
    damaged: dict[int, str],
) -> None:
    """Fill `images`, and note in `damaged` what cannot be decoded."""
    for number, span in enumerate(_spans(entries)):
        if number in damaged:
            continue
        try:
            images[number] = fitted(decode_image(bytes(data[span]), verified=True), size, resize_px)
        except ValueError as error:
            damaged[number] = str(error)


def _spans(entries: _Entries) -> list[slice]:
    return [slice(at, at + size) for at, size in zip(entries.offsets.tolist(), entries.sizes_bytes.tolist(), strict=True)]


def _stand_ins(count: int, damaged: dict[int, str]) -> NDArray[np.int64]:
    """For each sample itself, or the next whole one; after the last comes the first."""
    numbers = np.arange(count)
    whole = np.array([n for n in numbers if n not in damaged])
    return whole[np.searchsorted(whole, numbers) % len(whole)] if damaged else numbers


def fitted(image_HWC: Pixels, size: tuple[int, int] | None, resize_px: int | None) -> Pixels:
    """The image, `resized` where that is asked for. Raises `ValueError` where it has not the `size` that it must have."""
    image = image_HWC if resize_px is None else resized(image_HWC, resize_px)
    if size is not None and image.shape[:2] != size:
        raise ValueError(f"is {image.shape[0]} x {image.shape[1]} px, not {size[0]} x {size[1]}")
    return image


def resized(image_HWC: Pixels, size_px: int) -> Pixels:
    """The largest central square, scaled to `size_px` x `size_px` (Pillow's bilinear, which averages when it shrinks)."""
    height, width, _ = image_HWC.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image_HWC[top : top + side, left : left + side]
    if side == size_px:
        return square
    return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((size_px, size_px), Image.Resampling.BILINEAR))
