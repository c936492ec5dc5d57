"""One shard as bytes: a USTAR archive that stock WebDataset reads, and that is the same bytes whenever it is written."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from adainf.shards.manifest import SampleIndex
from adainf.shards.png import Pixels, encode_stored_png

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")


_META = re.compile(r"__[^/]*__($|/)")


class Sample(NamedTuple):
    """One image, H x W x 3 uint8 RGB, and its label or None."""

    image: Pixels
    label: int | None


class EncodedShard(NamedTuple):
    data: bytes
    samples: list[SampleIndex]
    pixels_sha256: str
    channel_sums: tuple[int, int, int]


def encode_shard(first_index: int, samples: Sequence[Sample]) -> EncodedShard:
    """Pack samples `first_index`, `first_index` + 1, … as ``000123.png`` (and ``000123.cls``) into one tar."""
    buffer = io.BytesIO()
    index: list[SampleIndex] = []
    pixels = hashlib.sha256()
    sums = np.zeros(3, np.int64)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, label) in enumerate(samples, first_index):
            key = f"{number:06d}"
            png = encode_stored_png(image)
            offset = _add(tar, buffer, f"{key}.png", png)
            if label is not None:
                _add(tar, buffer, f"{key}.cls", str(label).encode())
            index.append(SampleIndex(key=key, image_offset=offset, image_size_bytes=len(png), label=label))
            pixels.update(np.ascontiguousarray(image).data)
            sums += image.reshape(-1, 3).sum(0, dtype=np.int64)
    red, green, blue = sums.tolist()
    return EncodedShard(buffer.getvalue(), index, pixels.hexdigest(), (red, green, blue))


def _add(tar: tarfile.TarFile, buffer: io.BytesIO, name: str, data: bytes) -> int:
    info = tarfile.TarInfo(name)  # its defaults are mtime 0, uid and gid 0, mode 0644, no names
    info.size = len(data)
    offset = buffer.tell() + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset


class ForeignSample(NamedTuple):
    """A sample of somebody else's tar: its key, the encoded image, and the label or None."""

    key: str
    image: bytes
    label: int | None


def read_foreign_tar(data: bytes) -> Iterator[ForeignSample]:
    """The samples of any WebDataset tar, in order. Raises `ValueError` where the archive is damaged or not whole.

    As in webdataset, neighbours that differ only after the first dot of their names are one sample, and hidden files,
    files without a suffix and ``__meta__`` entries are none. Python's tarfile takes a damaged header for the end of the
    archive; here every byte must be accounted for.
    """
    group: dict[str, bytes] = {}
    current: str | None = None
    for name, content in _members(data):
        path = PurePosixPath(name)
        stem, _, suffix = path.name.partition(".")
        if not stem or not suffix or _META.match(name):
            continue
        key, field = str(path.with_name(stem)), f".{suffix.lower()}"
        if key != current and group:
            yield _foreign_sample(current or "", group)
            group = {}
        if field in group:
            raise ValueError(f"sample {key} holds {field} twice")
        current = key
        group[field] = content
    if group:
        yield _foreign_sample(current or "", group)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    end = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if end > len(data):
                    raise ValueError(f"it ends inside {member.name}, after {len(data)} bytes")
                if member.isfile():
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield member.name, stream.read()
                elif not member.isdir():  # a link to an image would be a sample less, without a word
                    raise ValueError(f"{member.name} is no plain file")
    except ValueError:
        raise
    except Exception as error:  # tarfile lets IndexError, OverflowError and others through for damaged extended headers
        raise ValueError(f"not a whole tar archive ({error})") from None
    rest = data[end:]
    if len(rest) < 2 * tarfile.BLOCKSIZE:
        raise ValueError(f"it ends after {len(data)} bytes without the end-of-archive mark")
    if rest.strip(b"\0"):
        raise ValueError(f"the header at byte {end} is damaged")


def _foreign_sample(key: str, group: dict[str, bytes]) -> ForeignSample:
    images = [suffix for suffix in group if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise ValueError(f"sample {key} holds {len(images)} images ({', '.join(sorted(group))}), expected one")
    label = group.get(".cls")
    try:
        return ForeignSample(key, group[images[0]], None if label is None else int(label))
    except ValueError:
        raise ValueError(f"sample {key}: its .cls is {label!r}, expected an integer") from None
