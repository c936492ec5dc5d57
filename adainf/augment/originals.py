"""The random resized crops of photos that are kept at their own size: where the loader cuts the views of an image.

A box is a function of (seed, step, image, view number), drawn as for images of one size (`adainf.augment.draws`). The loader
cuts it from the photo; `augment_crops` applies the other operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adainf.augment.draws import draw_boxes
from adainf.augment.profiles import Profile
from adainf.shards.loader.permutation import Integers


def identities_of(sources: Integers, indices: Integers) -> Integers:
    """One number per image of a stream."""
    return (sources.astype(np.int64) << 40) + indices


@dataclass(frozen=True)
class OriginalCrops:
    """See `adainf.shards.loader.complete.Crops`."""

    seed: int
    profiles: Sequence[Profile]
    size_px: int
    """Height and width of the views whose profile has none."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        sides = [profile.size_px or self.size_px for profile in self.profiles]
        return [(side, side) for side in sides]

    def drawing(self, step: int, source: int) -> Callable[[Integers, Integers, Integers], Integers]:
        def draw(indices: Integers, heights: Integers, widths: Integers) -> Integers:
            identities = torch.from_numpy(identities_of(np.full(len(indices), source), indices))
            sizes = [torch.from_numpy(np.maximum(each, 1)) for each in (heights, widths)]
            boxes: list[Tensor] = []
            for view, profile in enumerate(self.profiles):
                boxes.append(draw_boxes(identities, self.seed, step, view, profile, *sizes))
            return torch.stack(boxes).numpy()

        return draw
