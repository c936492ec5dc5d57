"""A reference shard by the standard library, file by file: the fast writer must give the same bytes."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Sequence

import numpy as np

from adainf.shards.format.tar import Sample


def stored_png(image_HWC: np.ndarray) -> bytes:
    """The PNG of RFC 2083 whose deflate stream is stored blocks (RFC 1951, 3.2.4), by zlib and struct."""
    height, width, _ = image_HWC.shape
    raw = b"".join(b"\0" + row.tobytes() for row in image_HWC)
    blocks = [raw[at : at + 65_535] for at in range(0, len(raw), 65_535)]
    stream = b"\x78\x01"
    for number, block in enumerate(blocks):
        stream += struct.pack("<BHH", number == len(blocks) - 1, len(block), 65_535 - len(block)) + block
    stream += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", stream), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tar(first_index: int, samples: Sequence[Sample]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (image, label, text) in enumerate(samples, first_index):
            files = {"png": stored_png(image), "cls": label, "txt": text}
            for suffix, content in files.items():
                if content is not None:
                    data = content if isinstance(content, bytes) else str(content).encode()
                    info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
