"""Write a shard: a USTAR archive that stock WebDataset reads, with deterministic bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.shards.format.formats import suffix_of
from adainf.shards.format.png import Pixels, encode_deflated_png, encode_stored_png, encode_stored_pngs
from adainf.shards.format.scan import BLOCK, Buffer

Compression = Literal["stored", "deflate"]
"""How the PNGs of a shard store their pixels; see `png`."""

_HEADER = np.frombuffer(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT), np.uint8)
"""Of an empty file: mtime 0, uid and gid 0, mode 0644, no names."""
_CHECKSUM = slice(148, 156)


class Sample(NamedTuple):
    """One image, H x W x 3 uint8 RGB, and its label or None."""

    image: Pixels
    label: int | None
    text: str | None = None
    """Its caption: not empty, stripped of white space."""


class Original(Sample):
    """A sample whose file is stored; its pixels are those that are read."""

    encoded: bytes

    @classmethod
    def of(cls, sample: Sample, encoded: bytes) -> Original:
        """The sample with its file."""
        original = cls(*sample)
        original.encoded = encoded
        return original


def encode_shard(first_index: int, samples: Sequence[Sample], compression: Compression = "stored", prefix: str = "") -> bytes:
    """Pack samples `first_index`, `first_index` + 1, … as ``000123.png`` (and ``.cls``, ``.txt``) into one tar.

    `prefix`: of each key.
    """
    files: list[tuple[str, Buffer]] = []
    kept = [sample.encoded for sample in samples if isinstance(sample, Original)]
    images = kept if len(kept) == len(samples) else _encode_images([sample.image for sample in samples], compression)
    for number, (image, (_, label, text)) in enumerate(zip(images, samples, strict=True), first_index):
        files.append((f"{prefix}{number:06d}.{suffix_of(bytes(image)) if kept else 'png'}", image))
        if label is not None:
            files.append((f"{prefix}{number:06d}.cls", str(label).encode()))
        if text is not None:
            files.append((f"{prefix}{number:06d}.txt", text.encode()))
    return _pack(files)


def _encode_images(images: list[Pixels], compression: Compression) -> Sequence[Buffer]:
    if compression == "deflate":
        return [encode_deflated_png(image) for image in images]
    if len({image.shape for image in images}) == 1:
        return [each.data for each in encode_stored_pngs(np.stack(images))]
    return [encode_stored_png(image) for image in images]


def _pack(files: list[tuple[str, Buffer]]) -> bytes:
    """A tar of (name, content), byte for byte what `tarfile` writes, with all headers written as one array."""
    sizes = np.array([len(content) for _, content in files], np.int64)
    spans = BLOCK + -(-sizes // BLOCK) * BLOCK
    starts = np.cumsum(spans) - spans
    end = int(spans.sum()) + 2 * BLOCK  # two blocks of zeros are the end-of-archive marker
    data = np.zeros(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE, np.uint8)
    data.reshape(-1, BLOCK)[starts // BLOCK] = _headers([name for name, _ in files], sizes)
    view = data.data
    for at, (_, content) in zip((starts + BLOCK).tolist(), files, strict=True):
        view[at : at + len(content)] = content
    return data.tobytes()


def _headers(names: list[str], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    headers = np.tile(_HEADER, (len(names), 1))
    headers[:, :100] = np.array([name.encode() for name in names], "S100").view(np.uint8).reshape(-1, 100)
    headers[:, 124:135] = _octal(sizes, 11)
    headers[:, _CHECKSUM] = ord(" ")  # the checksum field counts as blanks
    headers[:, 148:154] = _octal(headers.sum(1, dtype=np.int64), 6)
    headers[:, 154] = 0
    return headers


def _octal(values: NDArray[np.int64], digits: int) -> NDArray[np.int64]:
    return (values[:, None] >> 3 * np.arange(digits)[::-1] & 7) + ord("0")
