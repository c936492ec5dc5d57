"""Ours: per-sample draws, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

PACKAGE = "adainf"
VARIANTS = {"exact": "hue of HSV, clamped after each operation", "yiq": "hue of YIQ, colour as one matrix"}


def augmenter(variant: Any, profile: dict[str, Any], size_px: int) -> Callable[[np.ndarray, int], Any]:
    import torch

    from adainf.augment.profiles import Profile
    from adainf.augment.views import augment
    from benchmarks.augmenters import MEAN, STD

    views = [Profile(**profile, size_px=size_px)] * 2

    def both(images: np.ndarray, step: int) -> Any:
        """Two views of a half of the batch, as training makes them."""
        half = torch.from_numpy(images[: len(images) // 2])
        return augment(half, torch.arange(len(half)), 0, step, views, MEAN, STD, variant)

    return both
