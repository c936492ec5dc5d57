"""Image files: the suffixes and formats that are read, how they are read, and their headers.

What is read depends on the installed Pillow: all formats of still images, except those that start other programs, are not
decoded by Pillow itself or decompress without limit.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

COMMON_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
"""Those that every Pillow decodes."""
NPY = b"\x93NUMPY"
_REFUSED = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
"""EPS starts Ghostscript; BUFR, GRIB, HDF5 and WMF need a handler; FITS may contain gzip of any size; the others are not still
images."""
_FIRST = ("PNG", "JPEG", "PPM", "GIF", "BMP")
"""The formats that Pillow knows before it imports all of its plugins, which takes a tenth of a second."""

_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation. `ImageOps.exif_transpose` would fail at corrupt EXIF, whose pixels may be intact."""

SixteenBit = Literal["scale", "refuse"]


class Reading(NamedTuple):
    """How image files become pixels."""

    exif_transpose: bool = False
    """Turn and mirror the image as its EXIF orientation says."""
    sixteen_bit: SixteenBit = "refuse"
    """Greyscale of 16 bits: scaled, 0..65535 to 0..255, or an error."""
    least_px: int | None = None
    """Decode a JPEG at a half, a quarter or an eighth of its size, with both sides some times this; None: at its size."""
    square_px: int | None = None
    """The same, and resize the central square of what was scaled to this: a scaled image ends within a pixel."""
    keep_encoded: bool = False
    """Return the encoded image with the pixels (`adainf.shards.format.tar.Original`)."""


AS_STORED = Reading()
"""Without EXIF orientation: the images of a shard set."""


class Header(NamedTuple):
    """What an image file says about itself, read without decoding pixels."""

    mode: str
    """Of Pillow: RGB, L, P, CMYK, I;16, …"""
    height_px: int
    width_px: int
    orientation: int
    """Of EXIF: 1 is upright; 5 to 8 exchange height and width. 1 for TIFF, which Pillow always turns."""


@cache
def image_suffixes() -> tuple[str, ...]:
    """The suffixes of the image files that the installed Pillow decodes, in lower case, the common ones first."""
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in {*_formats(), "MPO"}}
    return (*COMMON_SUFFIXES, *sorted(known.difference(COMMON_SUFFIXES)))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED)


def open_image(file: io.BytesIO | Path) -> Image.Image:
    """Open an image without decoding it. Raises `UnidentifiedImageError` for any format that is not read."""
    try:
        return Image.open(file, formats=_FIRST)
    except UnidentifiedImageError:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        return Image.open(file, formats=_formats())


def header_of(file: io.BytesIO | Path) -> Header | None:
    """The header of an image file; None where it cannot be read: decoding it reports why."""
    try:
        with open_image(file) as image:
            return Header(image.mode, image.height, image.width, 1 if image.format == "TIFF" else orientation(image))
    except Exception:  # as in `decode_image`
        return None


def header_in(data: bytes) -> Header | None:
    """The header of an encoded image or .npy; None where it cannot be read."""
    if not data.startswith(NPY):
        return header_of(io.BytesIO(data))
    try:
        height, width, _ = np.load(io.BytesIO(data), allow_pickle=False).shape
    except ValueError:
        return None
    return Header("RGB", height, width, 1)


_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "PPM": "ppm", "TIFF": "tif", "JPEG2000": "jp2"}


def suffix_of(data: bytes) -> str:
    """The suffix for an encoded image that can be read."""
    if data.startswith(NPY):
        return "npy"
    with open_image(io.BytesIO(data)) as image:
        kind = image.format or ""
    return _SUFFIXES.get(kind, kind.lower())


def upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored by its EXIF orientation."""
    image.load()  # a PNG may have its EXIF after the pixels
    method = _METHODS.get(orientation(image))
    return image if method is None else image.transpose(method)


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels turned and mirrored by an EXIF orientation."""
    method = _METHODS.get(orientation)
    return pixels if method is None else np.asarray(Image.fromarray(pixels).transpose(method))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it is invalid."""
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode all pixels to look for a later chunk
        return 1
    try:
        value: object = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # corrupt EXIF makes Pillow raise many types; the pixels may be intact
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
