"""Settings of the contrastive methods."""

from __future__ import annotations

from typing import Literal

from adainf.recipe.sections import Positive, Section, Width


class SimClr(Section):
    """SimCLR (Chen et al. 2020): NT-Xent over all pairs of the global batch."""

    kind: Literal["simclr"] = "simclr"
    temperature: Positive = 0.2
    """T of NT-Xent."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of the projections that the loss compares."""
