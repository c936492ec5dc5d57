"""Encode and decode images. Pixels are uint8, height x width x channels in RGB order, everywhere in this project."""

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

from adainf.shards.format import jpeg
from adainf.shards.format.formats import AS_STORED, NPY, Reading, header_of, open_image, orientation, turned, upright

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
"""The last chunk: length, type, CRC."""
_PIXELS_AT = 48
"""Signature 8, IHDR chunk 25, IDAT length and type 8, zlib header 2, stored block header 5."""
_BLOCK = 0xFFFF
"""Maximum size of a stored deflate block (RFC 1951, 3.2.4)."""
_PLAIN_RGB = b"\x08\x02\0\0\0"
"""The end of an IHDR chunk: 8 bits, RGB, deflate, standard filters, not interlaced."""
_DEFLATE_LEVEL = 6
MAX_PIXELS = 178_956_970
"""Of one image: the limit above which Pillow assumes a decompression bomb."""


def encode_stored_pngs(images_NHWC: Pixels) -> Pixels:
    """PNGs with stored (uncompressed) deflate blocks: their bytes depend only on the pixels, not on a zlib build. N x S uint8.

    `images_NHWC` is uint8, N x H x W x 3, RGB. All files have the same length S. Raises `ValueError` for any other array.
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
    chunk = files[:, len(start) - 6 : at + 4]  # type and stream: what the chunk's CRC covers
    files[:, at + 4 : at + 8] = _words([zlib.crc32(each.data) for each in chunk])
    files[:, at + 8 :] = _bytes(_END)
    return files


def encode_stored_png(image_HWC: Pixels) -> bytes:
    """One image, encoded as by `encode_stored_pngs`."""
    return encode_stored_pngs(image_HWC[None])[0].tobytes()


def encode_deflated_png(image_HWC: Pixels) -> bytes:
    """A PNG compressed by Pillow: smaller, but its bytes depend on Pillow's zlib build, so only pixels can be compared."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=_DEFLATE_LEVEL)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bytes(data: bytes) -> Pixels:
    return np.frombuffer(data, np.uint8)


def _words(values: list[int]) -> Pixels:
    """N 32-bit numbers as N x 4 big-endian bytes."""
    return np.array(values, ">u4").view(np.uint8).reshape(-1, 4)


def decode_image(data: bytes, verified: bool = False, reading: Reading = AS_STORED) -> Pixels:
    """The pixels of an encoded image or .npy, H x W x 3 uint8 RGB. Grey and palette images become RGB; transparency is dropped.

    `verified`: the bytes match a checksum already, so PNG's own checksums are skipped. `reading`: EXIF orientation and 16-bit
    greyscale, which by default are ignored and refused. Raises `ValueError`, with the reason, where the image cannot be decoded
    completely or has more than 8 bits per channel.
    """
    stored = _decode_stored_png(data)
    if stored is not None:
        return stored
    if data.startswith(NPY):
        return _decode_npy(data)
    fast = _decode_jpeg(data, reading) if data.startswith(jpeg.MAGIC) else _decode_png(data) if verified else None
    if fast is not None:
        return fast
    try:
        if data.startswith(_SIGNATURE) and not verified:  # Pillow stops at the last pixel; this detects a truncated end
            with Image.open(io.BytesIO(data)) as checked:
                checked.verify()
            if _END not in data:
                raise ValueError("the IEND chunk is missing")
        with open_image(io.BytesIO(data)) as opened:
            mode, (width, height) = opened.mode, opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} px exceed the limit of {MAX_PIXELS:,} pixels")
            scale = jpeg.scale_of(height, width, reading.square_px or reading.least_px)
            jpeg.draft(opened, scale)
            if reading.square_px and opened.size != (width, height):
                pixels = jpeg.square(np.array(opened.convert("RGB")), height, width, scale, reading.square_px)
                return turned(pixels, orientation(opened)) if reading.exif_transpose else pixels
            image = upright(opened) if reading.exif_transpose else opened
            if mode == "RGB":
                return np.array(image)
            if not mode.startswith(("I", "F")):
                return np.array(image.convert("RGB"))
            sixteen_bit = mode.startswith("I;16") or (mode == "I" and opened.format in ("PNG", "PPM"))
            if sixteen_bit and reading.sixteen_bit == "scale":
                return _scaled(np.asarray(image))
    except Exception as error:  # corrupt bytes make Pillow raise many types, struct.error and SyntaxError among them
        raise ValueError(f"cannot decode the image ({decode_problem(error)})") from None
    raise (SixteenBitImage if sixteen_bit else ValueError)(f"the image has more than 8 bits per channel (mode {mode})")


class SixteenBitImage(ValueError):
    """Greyscale of 16 bits, which Pillow would clip, where `Reading.sixteen_bit` refuses it."""


def _scaled(grey_HW: NDArray[np.integer]) -> Pixels:
    """Greyscale 0..65535 as 0..255 of three equal channels."""
    grey = ((grey_HW.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def decode_problem(error: Exception) -> str:
    """Pillow's error message, without the file object in it."""
    return "unknown format" if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"


@cache
def _fast_decoder() -> Callable[[bytes, tuple[int, int], str], Pixels] | None:
    """The decoder of kornia-rs, if installed: four times as fast as Pillow's for small images."""
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    return decode_image_png_u8


def _decode_jpeg(data: bytes, reading: Reading) -> Pixels | None:
    """The pixels of a regular JPEG; None where Pillow has to decode it."""
    frame = jpeg.frame_of(data)
    if frame is None or not 0 < frame.height_px * frame.width_px <= MAX_PIXELS:
        return None
    scale = jpeg.scale_of(frame.height_px, frame.width_px, reading.square_px or reading.least_px)
    pixels = jpeg.decode_jpeg(data, frame, scale)
    if pixels is not None and scale > 1 and reading.square_px:
        pixels = jpeg.square(pixels, frame.height_px, frame.width_px, scale, reading.square_px)
    if pixels is None or not (frame.has_app1 and reading.exif_transpose):
        return pixels
    header = header_of(io.BytesIO(data))
    return None if header is None else turned(pixels, header.orientation)


def _decode_png(data: bytes) -> Pixels | None:
    """The pixels of a plain 8-bit RGB PNG, for which all decoders agree; None for any other."""
    decode = _fast_decoder()
    if decode is None or not data.startswith(_SIGNATURE) or data[24:29] != _PLAIN_RGB or b"tRNS" in data:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not 0 < width * height <= MAX_PIXELS:
        return None
    try:
        return np.asarray(decode(data, (height, width), "rgb"))
    except Exception:  # Pillow decodes it again and reports the error
        return None


def _decode_npy(data: bytes) -> Pixels:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise ValueError(f"cannot load the array ({type(error).__name__}: {error})") from None
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the array is {image.dtype} {image.shape}, expected uint8 H x W x 3")
    return np.ascontiguousarray(image)


def _decode_stored_png(data: bytes) -> Pixels | None:
    """The pixels of a PNG of `encode_stored_png` by one slice; None for any other, larger or corrupt image."""
    if not data.startswith(_SIGNATURE) or len(data) < _PIXELS_AT:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if len(data) != _stored_size(height, width):
        return None
    rows = np.frombuffer(data, np.uint8, height * (1 + 3 * width), _PIXELS_AT).reshape(height, 1 + 3 * width)
    image = rows[:, 1:].reshape(height, width, 3)
    return image if encode_stored_png(image) == data else None


def _stored_size(height: int, width: int) -> int | None:
    """Bytes of a stored PNG of one block; None where the image needs more blocks."""
    size = height * (1 + 3 * width)
    return _PIXELS_AT + size + 20 if 0 < size <= _BLOCK else None


def copy_stored_pngs(
    data: bytes | memoryview, offsets: NDArray[np.int64], sizes_bytes: NDArray[np.int64], out_NHWC: Pixels
) -> bool:
    """Copy the pixels of N stored PNGs at `offsets` of `data` into `out_NHWC` at memory speed.

    Returns False, with `out_NHWC` undefined, unless all are stored PNGs of that size at equal distances. `data` matches a
    checksum already: PNG's own checksums are skipped.
    """
    count, height, width, _ = out_NHWC.shape
    size = _stored_size(height, width)
    if size is None or (sizes_bytes != size).any():
        return False
    stride = int(offsets[1] - offsets[0]) if count > 1 else size
    if stride < size or (offsets[1:] - offsets[:-1] != stride).any() or offsets[-1] + size > len(data):
        return False
    row = 1 + 3 * width
    span = np.frombuffer(data, np.uint8, (count - 1) * stride + size, int(offsets[0]))
    heads = as_strided(span, (count, _PIXELS_AT), (stride, 1), writeable=False)
    rows = as_strided(span[_PIXELS_AT:], (count, height, row), (stride, row, 1), writeable=False)
    expected = np.frombuffer(encode_stored_png(np.zeros((height, width, 3), np.uint8)), np.uint8, _PIXELS_AT)
    if (heads != expected).any() or rows[:, :, 0].any():
        return False
    out_NHWC.reshape(count, height, 3 * width)[...] = rows[:, :, 1:]
    return True
