"""Crop and resize regions of an encoded photo: several views from one decode, at the coarsest scale that serves them all.

Most of the time of a decode is Huffman decoding. A smaller region does not save much of it, as libjpeg-turbo reads the file
up to the region's end, and no wheel of it offers regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from adainf.shards.format import jpeg
from adainf.shards.format.formats import AS_STORED, Reading, header_in, turned
from adainf.shards.format.jpeg import Box
from adainf.shards.format.png import Pixels, decode_image


class Shape(NamedTuple):
    """Height and width of an upright photo, and the EXIF orientation by which it has to be turned; 0 x 0: unreadable."""

    height_px: int
    width_px: int
    orientation: int


def shape_of(data: bytes, reading: Reading = AS_STORED) -> Shape:
    """The shape of an encoded image, from its header."""
    frame = jpeg.frame_of(data) if data.startswith(jpeg.MAGIC) else None
    if frame is not None and not (frame.has_app1 and reading.exif_transpose):
        return Shape(frame.height_px, frame.width_px, 1)
    header = header_in(data)
    if header is None:
        return Shape(0, 0, 1)
    orientation = header.orientation if reading.exif_transpose else 1
    height, width = header.height_px, header.width_px
    return Shape(width, height, orientation) if orientation >= 5 else Shape(height, width, orientation)


def cut(data: bytes, shape: Shape, boxes: Sequence[Box], outs: Sequence[Pixels], reading: Reading, scaled: bool) -> None:
    """Decode an image once and write each box of the upright image, resized, into its array (H x W x 3).

    The filter is Pillow's bicubic, as in `adainf.augment.crop`. `scaled` decodes a JPEG at a half, a quarter or an eighth of
    its size where each box then is some times its array (`jpeg.scale_of`). Raises `ValueError` as `decode_image`.
    """
    height, width, orientation = shape
    ratio = min(min(box[2] / out.shape[0], box[3] / out.shape[1]) for box, out in zip(boxes, outs, strict=True))
    least_px = math.ceil(min(height, width) / ratio) if scaled and ratio else None
    stored = reading._replace(exif_transpose=False, square_px=None, least_px=least_px)
    pixels = decode_image(data, verified=True, reading=stored)
    if orientation >= 5:
        height, width = width, height
    scale = jpeg.scale_of(height, width, least_px)
    if pixels.shape[:2] != (-(-height // scale), -(-width // scale)):
        scale = 1  # a format that is not scaled
        if pixels.shape[:2] != (height, width):
            raise ValueError(f"the image is {pixels.shape[0]} x {pixels.shape[1]} px, its header states {height} x {width} px")
    for box, out in zip(boxes, outs, strict=True):
        rows, columns = (out.shape[1], out.shape[0]) if orientation >= 5 else out.shape[:2]
        place = _stored(box, height, width, orientation)
        view = jpeg.resize(pixels, place, scale, rows, columns, Image.Resampling.BICUBIC)
        out[...] = turned(view, orientation)


def _stored(box: Box, height_px: int, width_px: int, orientation: int) -> Box:
    """A box of the upright image, in an image that is stored with that height, width and EXIF orientation."""
    top, left, height, width = box
    if orientation >= 5:
        top, left, height, width = left, top, width, height
    if orientation in (3, 4, 6, 7):
        top = height_px - top - height
    if orientation in (2, 3, 7, 8):
        left = width_px - left - width
    return top, left, height, width
