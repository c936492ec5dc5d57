"""What a viewer is sent of an encoded image: its own bytes where they are small and safe to show, else a smaller picture."""

from __future__ import annotations

import io
import struct
import threading
from typing import NamedTuple

from PIL import Image

from adainf.shards.format.png import MAX_PIXELS, Pixels, decode_image, decode_problem

SMALL_BYTES = 16_384
"""An image of so many bytes needs no thumbnail."""
THUMBNAIL_PX = 160
MOST_SHOWN_PIXELS = 4096 * 4096
"""Of one image that a viewer's browser, or this server, decodes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""What every browser shows. The type is told by the bytes, never by a name in the data."""
_decoding = threading.Lock()
"""One large image at a time is in memory."""


class Header(NamedTuple):
    """What an encoded image declares."""

    kind: str
    width_px: int
    height_px: int


class Picture(NamedTuple):
    media_type: str
    data: bytes


def header(data: bytes) -> Header:
    """What the image says of itself; no pixel is decoded. Raises `ValueError` for no image, and for one that is too large."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 33:
        found = Header("PNG", *struct.unpack_from(">II", data, 16))
    elif data.startswith(_NPY):
        array = decode_image(data)
        found = Header("NPY", array.shape[1], array.shape[0])
    else:
        try:
            with Image.open(io.BytesIO(data)) as image:
                found = Header(image.format or "", *image.size)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # Pillow raises many kinds for damaged bytes
            raise ValueError(f"not an image ({type(error).__name__})") from None
    if not 0 < found.width_px * found.height_px <= MAX_PIXELS:
        raise ValueError(f"it declares {found.width_px:,} × {found.height_px:,} px, more than an image has")
    return found


def pixels(data: bytes) -> Pixels:
    """H x W x 3, uint8. Raises `ValueError` as `header` and `decode_image` do, and for more than is to be shown."""
    _, width, height = header(data)
    if width * height > MOST_SHOWN_PIXELS:
        raise ValueError(f"{width:,} × {height:,} px are too many to show")
    return decode_image(data)


def thumbnail(data: bytes) -> Picture:
    """No side over `THUMBNAIL_PX`, or the image itself where it is small. Raises as `pixels` does."""
    kind, width, height = header(data)
    if kind in _TYPES and len(data) <= SMALL_BYTES and width * height <= MOST_SHOWN_PIXELS:
        return Picture(_TYPES[kind], data)
    with _decoding:
        image = _small_jpeg(data) if kind == "JPEG" else Image.fromarray(pixels(data))
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return _png(image)


def full(data: bytes) -> Picture:
    """The image itself, or a PNG of it where browsers do not know its format. Raises as `pixels` does."""
    kind, width, height = header(data)
    if kind in _TYPES and width * height <= MOST_SHOWN_PIXELS:
        return Picture(_TYPES[kind], data)
    with _decoding:
        return _png(Image.fromarray(pixels(data)))


def _small_jpeg(data: bytes) -> Image.Image:
    """Decoded no larger than a thumbnail needs."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
            return image.convert("RGB")
    except Exception as error:
        raise ValueError(f"cannot decode the image ({decode_problem(error)})") from None


def _png(image: Image.Image) -> Picture:
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return Picture("image/png", written.getvalue())
