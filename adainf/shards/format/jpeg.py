"""Decode JPEG by libjpeg-turbo through simplejpeg, at twice Pillow's speed.

Pillow is the reference. A file with anything unusual (CMYK, an irregular header, a warning of libjpeg) is left to Pillow, which
decodes it or reports the error. Once per process, simplejpeg must decode built-in images to Pillow's pixels; else Pillow
decodes everything. simplejpeg releases the GIL.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adainf.errors import AdaInfWarning

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""
MAGIC = b"\xff\xd8\xff"
_SOS = 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, with Huffman coding."""
_PLAIN = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Tables, restart interval, comment and application data."""
_APP1 = 0xE1
_SCALES = (8, 4, 2)
_BLOCK_PX = 8
_GAP = 1.25
"""The resize after a scaled decode shrinks at least by this: nearer to 1, edges are sharper than those of the exact image."""
_SLOW = "JPEG files are decoded by Pillow, which takes twice the time"


class Frame(NamedTuple):
    """What the header of a regular JPEG says."""

    height_px: int
    width_px: int
    has_app1: bool
    """Whether there is EXIF or XMP, which may contain an orientation."""


def frame_of(data: bytes | memoryview) -> Frame | None:
    """The frame of a JPEG with 8 bits and one or three components; None for any other and for an irregular header."""
    at, end, frame, has_app1 = 2, len(data) - 10, None, False
    while at < end and data[at] == 0xFF:
        kind, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if kind == _SOS:
            return None if frame is None else Frame(*frame, has_app1)
        if kind in _FRAMES and frame is None:
            if data[at + 4] != 8 or data[at + 9] not in (1, 3) or length != 8 + 3 * data[at + 9]:
                return None
            frame = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
        elif kind not in _PLAIN:
            return None
        has_app1 |= kind == _APP1
        at += 2 + max(length, 2)
    return None


def scale_of(height_px: int, width_px: int, least_px: int | None) -> int:
    """The largest of 8, 4 and 2 that leaves both sides at least 1.25 x `least_px`; 1 for None."""
    side = min(height_px, width_px)
    shortest = 0.0 if least_px is None else side / (_GAP * least_px)
    # Below a block, scales of n/8 are not distinguishable by the size that they give.
    return next((scale for scale in _SCALES if scale <= shortest and side >= _BLOCK_PX), 1)


def decode_jpeg(data: bytes, frame: Frame, scale: int = 1) -> Pixels | None:
    """The pixels of a JPEG, divided by `scale` in the DCT domain; None where Pillow has to decode it."""
    decode = _decoder()
    if decode is None:
        return None
    try:
        return decode(data, -(-frame.height_px // scale), -(-frame.width_px // scale))
    except Exception:  # Pillow decodes it again and reports the error
        return None


def resize(pixels: Pixels, box: Box, scale: int, height_px: int, width_px: int, filter_: Image.Resampling) -> Pixels:
    """A box of an image that was decoded at 1 / `scale`, resized; the box is in pixels of the image at its own size."""
    top, left, height, width = (each / scale for each in box)
    first, start = int(top), int(left)
    piece = pixels[first : math.ceil(top + height), start : math.ceil(left + width)]
    part = (left - start, top - first, min(left - start + width, piece.shape[1]), min(top - first + height, piece.shape[0]))
    return np.asarray(Image.fromarray(np.ascontiguousarray(piece)).resize((width_px, height_px), filter_, part))


def square(pixels: Pixels, height_px: int, width_px: int, scale: int, size_px: int) -> Pixels:
    """The central square of an image of that size that was decoded at 1 / `scale`, resized as by `decode.resized`."""
    side = min(height_px, width_px)
    box = (height_px - side) // 2, (width_px - side) // 2, side, side
    return resize(pixels, box, scale, size_px, size_px, Image.Resampling.BILINEAR)


@cache
def _decoder() -> Callable[[bytes, int, int], Pixels] | None:
    """simplejpeg's decoder to at least that height and width; None where it is missing or differs from Pillow."""
    try:
        from simplejpeg import decode_jpeg as simplejpeg
    except ImportError:
        warnings.warn(f"simplejpeg is not installed: {_SLOW}; pip install 'adainf[fast]'", AdaInfWarning, stacklevel=2)
        return None

    def decode(data: bytes, height_px: int, width_px: int) -> Pixels:
        return np.asarray(simplejpeg(data, "RGB", min_height=height_px, min_width=width_px))

    for data, scale in _examples():
        expected = pillow_pixels(data, scale)
        if not np.array_equal(decode(data, *expected.shape[:2]), expected):
            text = f"simplejpeg decodes other pixels than Pillow here: {_SLOW}; install another version"
            warnings.warn(text, AdaInfWarning, stacklevel=2)
            return None
    return decode


def draft(image: Image.Image, scale: int) -> None:
    """Let Pillow decode an image divided by `scale`; formats other than JPEG stay as they are."""
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))


def pillow_pixels(data: bytes, scale: int = 1) -> Pixels:
    """The reference: the pixels by Pillow."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        draft(image, scale)
        return np.array(image.convert("RGB"))


def _examples() -> Iterator[tuple[bytes, int]]:
    """Encoded images with all that decoders do differently: chroma at every subsampling, edges within a block, saturation."""
    y, x = np.mgrid[:83, :117]
    pixels = np.stack([x * 5 + y * 3, x * y // 7, (x ^ y) * 9], axis=2).astype(np.uint8)  # wraps: edges of all strengths
    for options in ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2, "progressive": True}, {"subsampling": 2}):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88, **options)
        for scale in (1, *_SCALES):
            yield buffer.getvalue(), scale
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(buffer, "JPEG")
    yield buffer.getvalue(), 1
