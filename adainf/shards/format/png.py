"""Images as bytes. Pixels are uint8, height x width x channels, channels in RGB order, everywhere in this project."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adainf.shards.loader.arrays import Integers

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
"""The last chunk: length, type, CRC."""
_PIXELS_AT = 48
"""Signature 8, IHDR chunk 25, IDAT length and type 8, zlib header 2, stored block header 5."""
_BLOCK = 0xFFFF
"""Most bytes that one stored deflate block holds (RFC 1951, 3.2.4)."""
_PLAIN_RGB = b"\x08\x02\0\0\0"
"""Of a header: 8 bits, RGB, deflate, its filters, not interlaced."""
_DEFLATE_LEVEL = 6
_NPY = b"\x93NUMPY"
MOST_PIXELS = 178_956_970
"""Of one image: where Pillow, too, takes a file for a decompression bomb."""


def encode_stored_pngs(images_NHWC: Pixels) -> Pixels:
    """Valid PNGs whose deflate streams are only stored, so their bytes depend on the pixels and on no zlib build: N x S uint8.

    `images_NHWC` is uint8, N x H x W x 3, RGB. All files of one size have one length S. Raises `ValueError` for anything else.
    """
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != 3:
        raise ValueError(f"expected uint8 H x W x 3, got {images_NHWC.dtype} {images_NHWC.shape[1:]}")
    count, height, width, _ = images_NHWC.shape
    rows = np.zeros((count, height, 1 + 3 * width), np.uint8)  # a filter byte (0, none) before each row
    rows[:, :, 1:] = images_NHWC.reshape(count, height, -1)
    raw = rows.reshape(count, -1)
    size = raw.shape[1]
    stream_size = 2 + 5 * -(-size // _BLOCK) + size + 4
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, colour type 2 = RGB, not interlaced
    start = _SIGNATURE + _chunk(b"IHDR", header) + struct.pack(">I", stream_size) + b"IDAT" + b"\x78\x01"
    files = np.empty((count, len(start) - 2 + stream_size + 4 + len(_END)), np.uint8)
    files[:, : len(start)] = _bytes(start)
    at = len(start)
    for first in range(0, size, _BLOCK):
        block = raw[:, first : first + _BLOCK]
        length = block.shape[1]
        files[:, at : at + 5] = _bytes(struct.pack("<BHH", first + length == size, length, length ^ 0xFFFF))
        files[:, at + 5 : at + 5 + length] = block
        at += 5 + length
    files[:, at : at + 4] = _words([zlib.adler32(each.data) for each in raw])
    chunk = files[:, len(start) - 6 : at + 4]  # type and stream: what the chunk's CRC is of
    files[:, at + 4 : at + 8] = _words([zlib.crc32(each.data) for each in chunk])
    files[:, at + 8 :] = _bytes(_END)
    return files


def encode_stored_png(image_HWC: Pixels) -> bytes:
    """One image as `encode_stored_pngs` has it."""
    return encode_stored_pngs(image_HWC[None])[0].tobytes()


def encode_deflated_png(image_HWC: Pixels) -> bytes:
    """A PNG compressed by Pillow: smaller, but its bytes depend on Pillow's build of zlib, so only pixels can be compared."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=_DEFLATE_LEVEL)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bytes(data: bytes) -> Pixels:
    return np.frombuffer(data, np.uint8)


def _words(values: list[int]) -> Pixels:
    """N numbers of 32 bits as N x 4 bytes, the highest first."""
    return np.array(values, ">u4").view(np.uint8).reshape(-1, 4)


def decode_image(data: bytes, verified: bool = False) -> Pixels:
    """The pixels of an encoded image or .npy, H x W x 3 uint8 RGB; grey and palette images become RGB, transparency is dropped.

    `verified`: a checksum has shown that these are the bytes that were written, so PNG's own sums need no second look.
    Raises `ValueError` with the reason where the image cannot be decoded whole or has more than 8 bits per channel.
    """
    stored = _decode_stored_png(data)
    if stored is not None:
        return stored
    if data.startswith(_NPY):
        return _decode_npy(data)
    fast = _decode_fast(data) if verified else None
    if fast is not None:
        return fast
    try:
        if data.startswith(_SIGNATURE) and not verified:  # Pillow stops at the last pixel; a lost end is found by this
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
            if _END not in data:
                raise ValueError("its last chunk is cut")
        with Image.open(io.BytesIO(data)) as image:
            mode, (width, height) = image.mode, image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} px are more than an image has")
            if mode == "RGB":
                return np.array(image)
            if not mode.startswith(("I", "F")):
                return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds for damaged bytes, struct.error and SyntaxError among them
        raise ValueError(f"not a whole image ({undecodable(error)})") from None
    raise ValueError(f"its pixels have more than 8 bits (mode {mode})")  # Pillow would clip these, not scale them


def undecodable(error: Exception) -> str:
    """What Pillow has to say, without the object that it was given."""
    return "of no known kind" if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"


@cache
def _fast_decoder() -> Callable[[bytes, tuple[int, int], str], Pixels] | None:
    """kornia-rs's, where it is installed: four times as fast as Pillow's for small images."""
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    return decode_image_png_u8


def _decode_fast(data: bytes) -> Pixels | None:
    """The pixels of a plain RGB PNG of 8 bits, which every decoder gives alike (a JPEG's they do not); None for any other."""
    decode = _fast_decoder()
    if decode is None or not data.startswith(_SIGNATURE) or data[24:29] != _PLAIN_RGB or b"tRNS" in data:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not 0 < width * height <= MOST_PIXELS:
        return None
    try:
        return np.asarray(decode(data, (height, width), "rgb"))
    except Exception:  # Pillow says in its own words what is wrong
        return None


def _decode_npy(data: bytes) -> Pixels:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise ValueError(f"not a whole array ({type(error).__name__}: {error})") from None
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an array of {image.dtype} {image.shape}, expected uint8 H x W x 3")
    return np.ascontiguousarray(image)


def _decode_stored_png(data: bytes) -> Pixels | None:
    """The pixels of a PNG of `encode_stored_png` in one slice, or None for any other (or larger, or damaged) image."""
    if not data.startswith(_SIGNATURE) or len(data) < _PIXELS_AT:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if len(data) != _stored_size(height, width):
        return None
    rows = np.frombuffer(data, np.uint8, height * (1 + 3 * width), _PIXELS_AT).reshape(height, 1 + 3 * width)
    image = rows[:, 1:].reshape(height, width, 3)
    return image if encode_stored_png(image) == data else None


def _stored_size(height: int, width: int) -> int | None:
    """Bytes of a stored PNG of one block, or None where the image takes more."""
    size = height * (1 + 3 * width)
    return _PIXELS_AT + size + 20 if 0 < size <= _BLOCK else None


def copy_stored_pngs(data: bytes | memoryview, offsets: Integers, sizes_bytes: Integers, out_NHWC: Pixels) -> bool:
    """Copy the pixels of N stored PNGs at `offsets` of `data` into `out_NHWC` at the speed of memory.

    False, and `out_NHWC` is of no use, where they are not all stored PNGs of that size at equal distances. `data` has been
    verified by a checksum: PNG's own are not looked at.
    """
    count, height, width, _ = out_NHWC.shape
    size = _stored_size(height, width)
    if size is None or (sizes_bytes != size).any():
        return False
    stride = int(offsets[1] - offsets[0]) if count > 1 else size
    if stride < size or (offsets[1:] - offsets[:-1] != stride).any() or offsets[-1] + size > len(data):
        return False
    row = 1 + 3 * width
    whole = np.frombuffer(data, np.uint8, (count - 1) * stride + size, int(offsets[0]))
    heads = as_strided(whole, (count, _PIXELS_AT), (stride, 1), writeable=False)
    rows = as_strided(whole[_PIXELS_AT:], (count, height, row), (stride, row, 1), writeable=False)
    expected = np.frombuffer(encode_stored_png(np.zeros((height, width, 3), np.uint8)), np.uint8, _PIXELS_AT)
    if (heads != expected).any() or rows[:, :, 0].any():
        return False
    out_NHWC.reshape(count, height, 3 * width)[...] = rows[:, :, 1:]
    return True
