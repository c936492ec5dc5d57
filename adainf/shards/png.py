"""Images as bytes. Pixels are uint8, height x width x channels, channels in RGB order, everywhere in this project."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
"""The last chunk: length, type, CRC."""
_PIXELS_AT = 48
"""Signature 8, IHDR chunk 25, IDAT length and type 8, zlib header 2, stored block header 5."""
_BLOCK = 0xFFFF
"""Most bytes that one stored deflate block holds (RFC 1951, 3.2.4)."""


def encode_stored_png(image_HWC: Pixels) -> bytes:
    """A valid PNG whose deflate stream is only stored, so its bytes depend on the pixels and on no zlib build.

    `image_HWC` is uint8, H x W x 3, RGB. Raises `ValueError` for anything else.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(f"expected uint8 H x W x 3, got {image_HWC.dtype} {image_HWC.shape}")
    height, width, _ = image_HWC.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a filter byte (0, none) before each row
    rows[:, 1:] = image_HWC.reshape(height, -1)
    raw = rows.tobytes()
    blocks = [raw[at : at + _BLOCK] for at in range(0, len(raw), _BLOCK)]
    stream = b"\x78\x01" + b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    stream += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, colour type 2 = RGB, not interlaced
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _END


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def decode_image(data: bytes) -> Pixels:
    """The pixels of an encoded image, H x W x 3 uint8 RGB; grey and palette images become RGB, transparency is dropped.

    Raises `ValueError` with the reason where the image cannot be decoded whole or has more than 8 bits per channel.
    """
    stored = _decode_stored_png(data)
    if stored is not None:
        return stored
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if data.startswith(_SIGNATURE):  # Pillow stops at the last pixel: a lost end or a wrong sum is found by this
                with Image.open(io.BytesIO(data)) as image:
                    image.verify()
                if _END not in data:
                    raise ValueError("its last chunk is cut")
            with Image.open(io.BytesIO(data)) as image:
                mode = image.mode
                if not mode.startswith(("I", "F")):
                    return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds for damaged bytes, struct.error and SyntaxError among them
        raise ValueError(f"not a whole image ({type(error).__name__}: {error})") from None
    raise ValueError(f"its pixels have more than 8 bits (mode {mode})")  # Pillow would clip these, not scale them


def _decode_stored_png(data: bytes) -> Pixels | None:
    """The pixels of a PNG of `encode_stored_png` in one slice, or None for any other (or larger, or damaged) image."""
    if not data.startswith(_SIGNATURE) or len(data) < _PIXELS_AT:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    size = height * (1 + 3 * width)
    if not 0 < size <= _BLOCK or len(data) != _PIXELS_AT + size + 20:
        return None
    rows = np.frombuffer(data, np.uint8, size, _PIXELS_AT).reshape(height, 1 + 3 * width)
    image = rows[:, 1:].reshape(height, width, 3)
    return image if encode_stored_png(image) == data else None
