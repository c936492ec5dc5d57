"""The most and the least realistic generated images, each with its nearest training image."""

from __future__ import annotations

import numpy as np

from adainf.quality.embedding import EmbeddingMap
from adainf.shards.format.png import Pixels

COUNT = 8


def gallery(embedding: EmbeddingMap, generated: Pixels, training: Pixels) -> dict[str, Pixels]:
    """``best`` and ``worst`` by realism, most extreme first. Each sheet has two rows: generated images, and their nearest
    training images below. `generated` are the n images of the map, `training` all training images."""
    order = np.argsort(-embedding.realism, kind="stable")
    sheets = {}
    for name, rows in (("best", order[:COUNT]), ("worst", order[::-1][:COUNT])):
        near = embedding.nearest_rows[rows]
        sheets[name] = np.vstack([np.hstack(list(images)) for images in (generated[rows], training[near])])
    return sheets
