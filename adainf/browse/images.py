"""Images for the viewer: the encoded bytes if they are small and safe to show, else a thumbnail or a PNG."""

from __future__ import annotations

import io
import struct
import threading
from typing import NamedTuple

from PIL import Image

from adainf.shards.format.png import MAX_PIXELS, Pixels, decode_image, decode_problem

SMALL_BYTES = 16_384
"""An image of at most this size needs no thumbnail."""
THUMBNAIL_PX = 160
MAX_SHOWN_PIXELS = 4096 * 4096
"""Maximum size of an image that a viewer's browser or this server decodes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""Formats that every browser shows. The bytes determine the format, never a name in the data."""
_decoding = threading.Lock()
"""Only one large image at a time is in memory."""


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
    _, width, height = read_header(data)
    if width * height > MAX_SHOWN_PIXELS:
        raise ValueError(f"the image is too large to show ({width:,} × {height:,} px)")
    return decode_image(data)


def thumbnail(data: bytes) -> EncodedImage:
    """The image itself if it is small, else a PNG with sides of at most `THUMBNAIL_PX`. Raises as `decode` does."""
    kind, width, height = read_header(data)
    if kind in _TYPES and len(data) <= SMALL_BYTES and width * height <= MAX_SHOWN_PIXELS:
        return EncodedImage(_TYPES[kind], data)
    with _decoding:
        image = _small_jpeg(data) if kind == "JPEG" else Image.fromarray(decode(data))
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return _png(image)


def full_size(data: bytes) -> EncodedImage:
    """The image itself, or a PNG of it if browsers do not support its format. Raises as `decode` does."""
    kind, width, height = read_header(data)
    if kind in _TYPES and width * height <= MAX_SHOWN_PIXELS:
        return EncodedImage(_TYPES[kind], data)
    with _decoding:
        return _png(Image.fromarray(decode(data)))


def _small_jpeg(data: bytes) -> Image.Image:
    """A JPEG decoded at about twice the size of a thumbnail, which is fast."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
            return image.convert("RGB")
    except Exception as error:
        raise ValueError(f"cannot decode the image ({decode_problem(error)})") from None


def _png(image: Image.Image) -> EncodedImage:
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return EncodedImage("image/png", written.getvalue())
