"""One shard as bytes: a USTAR archive that stock WebDataset reads, and that is the same bytes whenever it is written."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from typing import NamedTuple

from adainf.shards.png import Pixels, encode_stored_png


class Sample(NamedTuple):
    """One image, H x W x 3 uint8 RGB, and its label or None."""

    image: Pixels
    label: int | None
    text: str | None = None
    """Its caption, not empty and without white space around it."""


class EncodedShard(NamedTuple):
    data: bytes
    keys: list[str]
    image_offsets: list[int]
    images: list[bytes]
    """The encoded images, as they lie in `data`."""


def encode_shard(first_index: int, samples: Sequence[Sample]) -> EncodedShard:
    """Pack samples `first_index`, `first_index` + 1, … as ``000123.png`` (and ``.cls``, ``.txt``) into one tar."""
    buffer = io.BytesIO()
    keys: list[str] = []
    offsets: list[int] = []
    images: list[bytes] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, label, text) in enumerate(samples, first_index):
            keys.append(f"{number:06d}")
            images.append(encode_stored_png(image))
            offsets.append(_add(tar, buffer, f"{keys[-1]}.png", images[-1]))
            if label is not None:
                _add(tar, buffer, f"{keys[-1]}.cls", str(label).encode())
            if text is not None:
                _add(tar, buffer, f"{keys[-1]}.txt", text.encode())
    return EncodedShard(buffer.getvalue(), keys, offsets, images)


def _add(tar: tarfile.TarFile, buffer: io.BytesIO, name: str, data: bytes) -> int:
    info = tarfile.TarInfo(name)  # its defaults are mtime 0, uid and gid 0, mode 0644, no names
    info.size = len(data)
    offset = buffer.tell() + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset
