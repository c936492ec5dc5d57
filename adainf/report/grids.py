"""Sample grids: the first images of a split as one PNG, small images enlarged without smoothing."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

from adainf.errors import BadInput
from adainf.shards.format.decode import fitted
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.reading import decoding

COLUMNS = 8
ROWS = 8
TILE_PX = 48
"""Minimum width of a tile; smaller images are enlarged by an integer factor."""
MAX_TILE_PX = 96
GAP_PX = 4


def first_images(folder: ShardFolder, split: str = "train", count: int = COLUMNS * ROWS) -> list[Pixels]:
    """The first images of the split, at most `count`. Reads only the shards that contain them. Raises `BadInput`."""
    return _first(folder, folder.shards.splits[split].shards, count)


def candidates_png(real: ShardFolder, drawn: ShardFolder) -> tuple[bytes, int, int]:
    """A PNG with rows of the first real training images, each followed by its candidates; the number of rows, and of candidates
    in each. Raises `BadInput`."""
    shards, parents = list(drawn.split("train").shards), real.split("train")
    layers = [shards[first : first + len(parents)] for first in range(0, len(shards), len(parents))][: COLUMNS - 1]
    columns = [_first(real, parents.shards, ROWS), *(_first(drawn, layer, ROWS) for layer in layers)]
    png = grid_png([image for row in zip(*columns, strict=True) for image in row], len(columns))
    assert png is not None
    return png, len(columns[0]), len(layers)


def _first(folder: ShardFolder, shards: Iterable[Shard], count: int) -> list[Pixels]:
    images: list[Pixels] = []
    for shard in shards:
        if len(images) >= count:
            break
        index = folder.index(shard)
        tar = folder.read(shard.tar)
        reading, size_px = decoding(folder.shards, None)
        wanted = list(zip(index.keys, index.image_offsets, index.image_sizes_bytes, strict=True))[: count - len(images)]
        for key, offset, size in wanted:
            try:
                images.append(fitted(decode_image(tar[offset : offset + size], reading=reading), None, size_px))
            except ValueError as error:
                raise BadInput(f"{folder.locate(shard.tar.key)}: sample {key}: {error}; make the shard again") from None
    return images


def grid_png(images: list[Pixels], columns: int = COLUMNS) -> bytes | None:
    """A PNG of the images (uint8 H x W x 3, one size) in rows of `columns` with transparent gaps; None without images."""
    if not images:
        return None
    tiles = [_tile(image) for image in images[: columns * ROWS]]
    height, width = tiles[0].shape[:2]
    rows, columns = math.ceil(len(tiles) / columns), min(len(tiles), columns)
    sheet = np.zeros((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 4), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (height + GAP_PX) * (number // columns), (width + GAP_PX) * (number % columns)
        sheet[top : top + height, left : left + width, :3] = tile
        sheet[top : top + height, left : left + width, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _tile(image_HWC: Pixels) -> Pixels:
    """The image enlarged by an integer factor to at least `TILE_PX` wide, or reduced to at most `MAX_TILE_PX`."""
    height, width = image_HWC.shape[:2]
    if max(height, width) > MAX_TILE_PX:
        factor = MAX_TILE_PX / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BOX))
    factor = max(1, math.ceil(TILE_PX / width))
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)
