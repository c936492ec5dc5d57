"""Generated images by index: the bytes of an image do not depend on its shard, its process or the order of generation."""

from __future__ import annotations

import numpy as np

from adainf.generators.kind import DrawBatch
from adainf.shards.format.png import Pixels


def sample_images(draw: DrawBatch, batch: int, indices: range) -> Pixels:
    """The images of `indices`, n x H x W x 3 uint8.

    Always sampled in batches of `batch`, the last one padded: another batch size may change the last bit.
    """
    parts = [draw(range(first, first + batch)) for first in range(indices.start, indices.stop, batch)]
    return np.concatenate(parts)[: len(indices)]
