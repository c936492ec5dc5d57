"""Crop and resize regions of an encoded photo: several views from one decode, at the coarsest scale that serves them all.

Most of the time of a decode is Huffman decoding. A smaller region does not save much of it, as libjpeg-turbo reads the file
up to the region's end, and no wheel of it offers regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adainf.shards.format import jpeg
from adainf.shards.format.formats import AS_STORED, Reading, header_in, turned
from adainf.shards.format.png import Pixels, decode_image

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the upright photo."""


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
    """Decode an image once and write each box, resized, into its array (H x W x 3).

    The filter is Pillow's bicubic, as in `adainf.augment.crop`. `scaled` decodes a JPEG at a half, a quarter or an eighth of
    its size where each box then has at least twice the height and width of its array. Raises `ValueError` as `decode_image`.
    """
    ratio = min(min(box[2] / out.shape[0], box[3] / out.shape[1]) for box, out in zip(boxes, outs, strict=True))
    shortest = min(shape.height_px, shape.width_px)
    least_px = math.ceil(shortest / ratio) if scaled and ratio else None
    pixels = decode_image(data, verified=True, reading=reading._replace(exif_transpose=False, least_px=least_px))
    pixels = turned(pixels, shape.orientation)
    scale = jpeg.scale_of(shape.height_px, shape.width_px, least_px)
    if pixels.shape[:2] != (-(-shape.height_px // scale), -(-shape.width_px // scale)):
        scale = 1  # a format that is not scaled
        if pixels.shape[:2] != shape[:2]:
            found = f"{pixels.shape[0]} x {pixels.shape[1]} px"
            raise ValueError(f"the image is {found}, its header states {shape.height_px} x {shape.width_px} px")
    for box, out in zip(boxes, outs, strict=True):
        _resize(pixels, np.array(box) / scale, out)


def _resize(pixels: Pixels, box: NDArray[np.float64], out: Pixels) -> None:
    top, left, height, width = box.tolist()
    first, start = int(top), int(left)
    piece = pixels[first : math.ceil(top + height), start : math.ceil(left + width)]
    if piece.shape == out.shape and (height, width) == piece.shape[:2]:
        out[...] = piece
        return
    bottom, right = min(top - first + height, piece.shape[0]), min(left - start + width, piece.shape[1])
    image = Image.fromarray(np.ascontiguousarray(piece))
    size = (out.shape[1], out.shape[0])
    out[...] = np.asarray(image.resize(size, Image.Resampling.BICUBIC, (left - start, top - first, right, bottom)))
