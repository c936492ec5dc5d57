"""What is trained: told to each side as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from adainf import recipe
from adainf.models.backbones import Backbone, build_backbone
from benchmarks.data import Images

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WORKERS = 2


class Task(NamedTuple):
    folder: str
    """With the images, as ``images.npy`` and as a set of shards in ``set/``."""
    method: str
    """`simclr` or `byol`."""
    backbone: dict[str, Any]
    precision: str
    """`no` or `bf16`."""
    batch: int
    warm_steps: int
    steps: int

    def images(self) -> Images:
        return np.load(Path(self.folder) / "images.npy")

    def build(self) -> Backbone:
        torch.manual_seed(0)
        torch.set_num_threads(WORKERS)
        return build_backbone(recipe.Backbone.model_validate(self.backbone))
