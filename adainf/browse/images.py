"""Images for the viewer: the encoded bytes if they are small and safe to show, else a thumbnail or a PNG."""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

from PIL import Image

from adainf.browse.budget import Budget
from adainf.shards.format.formats import open_image
from adainf.shards.format.png import MAX_PIXELS, Pixels, decode_image, decode_problem

SMALL_BYTES = 16_384
"""An image of at most this size needs no thumbnail."""
EXACT_PX = 64
"""An image with sides of at most this size is shown with its exact pixels, however it is encoded."""
THUMBNAIL_PX = 160
_JPEG_QUALITY = 80
MAX_SHOWN_PIXELS = 4096 * 4096
"""Maximum size of an image that a viewer's browser or this server decodes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""Formats that every browser shows. The bytes determine the format, never a name in the data."""
_decoding = Budget(64 * 2**20)
"""Of pixels that are decoded: small images concurrently, large ones one at a time."""
_PIXEL_BYTES = 12
"""Of a pixel while it is decoded: Pillow's four, and copies."""


class ImageHeader(NamedTuple):
    """The format and size that an encoded image declares."""

    kind: str
    width_px: int
    height_px: int


class EncodedImage(NamedTuple):
    media_type: str
    data: bytes


def read_header(data: bytes) -> ImageHeader:
    """The header, without decoding pixels. Raises `ValueError` for bytes that are not an image, and for a too large one."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 33:
        found = ImageHeader("PNG", *struct.unpack_from(">II", data, 16))
    elif data.startswith(_NPY):
        array = decode_image(data)
        found = ImageHeader("NPY", array.shape[1], array.shape[0])
    else:
        try:
            with Image.open(io.BytesIO(data)) as image:
                found = ImageHeader(image.format or "", *image.size)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # Pillow raises many types for corrupt bytes
            raise ValueError(f"not an image ({type(error).__name__})") from None
    if not 0 < found.width_px * found.height_px <= MAX_PIXELS:
        raise ValueError(f"declared size out of range: {found.width_px:,} × {found.height_px:,} px")
    return found


def decode(data: bytes) -> Pixels:
    """H x W x 3, uint8. Raises `ValueError` as `read_header` and `decode_image` do, and above `MAX_SHOWN_PIXELS`."""
    _check_shown(read_header(data))
    return decode_image(data)


def _check_shown(header: ImageHeader) -> int:
    """The number of pixels. Raises `ValueError` above `MAX_SHOWN_PIXELS`."""
    pixels = header.width_px * header.height_px
    if pixels > MAX_SHOWN_PIXELS:
        raise ValueError(f"the image is too large to show ({header.width_px:,} × {header.height_px:,} px)")
    return pixels


def thumbnail(data: bytes) -> EncodedImage:
    """The image itself if it is small; a PNG of the same pixels up to `EXACT_PX`; else a JPEG of at most `THUMBNAIL_PX`.

    The bytes match a checksum already. Raises as `decode` does.
    """
    header = read_header(data)
    pixels = _check_shown(header)
    if header.kind in _TYPES and len(data) <= SMALL_BYTES:
        return EncodedImage(_TYPES[header.kind], data)
    if header.kind == "JPEG" and max(header[1:]) > EXACT_PX:
        pixels //= _jpeg_scale(header) ** 2
    with _decoding.take(_PIXEL_BYTES * pixels):
        if max(header[1:]) <= EXACT_PX:
            return _png(Image.fromarray(decode_image(data)))
        at_once = header.kind in ("PNG", "NPY")  # kornia-rs, where it is installed, decodes a PNG in half of Pillow's time
        image = Image.fromarray(decode_image(data, verified=True)) if at_once else _decode_small(data, header)
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        written = io.BytesIO()
        image.save(written, "JPEG", quality=_JPEG_QUALITY)
        return EncodedImage("image/jpeg", written.getvalue())


def full_size(data: bytes) -> EncodedImage:
    """The image itself, or a PNG of it if browsers do not support its format. Raises as `decode` does."""
    header = read_header(data)
    pixels = _check_shown(header)
    if header.kind in _TYPES:
        return EncodedImage(_TYPES[header.kind], data)
    with _decoding.take(_PIXEL_BYTES * pixels):
        return _png(Image.fromarray(decode_image(data)))


def _jpeg_scale(header: ImageHeader) -> int:
    """1, 2, 4 or 8: how much smaller libjpeg decodes a JPEG so that it is not smaller than a thumbnail."""
    return next((scale for scale in (8, 4, 2) if max(header[1:]) >= scale * THUMBNAIL_PX), 1)


def _decode_small(data: bytes, header: ImageHeader) -> Image.Image:
    """An image for a thumbnail, without copies of its pixels.

    A JPEG is decoded at less than twice the size of a thumbnail, or at an eighth of its own: fast, and with little memory.
    """
    try:
        with open_image(io.BytesIO(data)) as image:
            if header.kind == "JPEG":
                scale = _jpeg_scale(header)
                image.draft("RGB", (header.width_px // scale, header.height_px // scale))
            if not image.mode.startswith(("I", "F")):
                image.load()
                return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # Pillow raises many types for corrupt bytes
        raise ValueError(f"cannot decode the image ({decode_problem(error)})") from None
    return Image.fromarray(decode_image(data))  # raises: it has more than 8 bits per channel


def _png(image: Image.Image) -> EncodedImage:
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return EncodedImage("image/png", written.getvalue())
