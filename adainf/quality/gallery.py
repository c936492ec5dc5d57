"""The most and the least realistic generated images, each with its nearest training image."""

from __future__ import annotations

import numpy as np
import torch

from adainf.quality.measure import Reference
from adainf.quality.pairs import Features, nearest
from adainf.shards.png import Pixels

COUNT = 8


def gallery(
    reference: Reference, generated_nD: Features, generated: Pixels, training: Pixels, device: torch.device
) -> dict[str, Pixels]:
    """``best`` and ``worst`` by realism, the extreme first: sheets of two rows, generated images above and below each the
    training image that is nearest to it, both in the reference's space."""
    order = np.argsort(-reference.manifold.realism(generated_nD), kind="stable")
    sheets = {}
    for name, rows in (("best", order[:COUNT]), ("worst", order[::-1][:COUNT])):
        near = nearest(generated_nD[rows], reference.training_ND, 1, device).indices[:, 0]
        sheets[name] = np.vstack([np.hstack(list(images)) for images in (generated[rows], training[near])])
    return sheets
