"""Malicious tars and images, written by Python's tarfile."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping

import numpy as np

from adainf.shards.format.png import encode_stored_png


def png(value: int = 0, size_px: int = 8) -> bytes:
    return encode_stored_png(np.full((size_px, size_px, 3), value, np.uint8))


def tar(files: Mapping[str, bytes], *special: tarfile.TarInfo) -> bytes:
    """A tar of these files and of special entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return buffer.getvalue()


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link or a device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def huge_png(side_px: int = 60_000) -> bytes:
    """A few bytes that declare an image of gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
