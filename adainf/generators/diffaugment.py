"""DiffAugment: what a discriminator's images go through, differentiably, so that few real images last longer.

Zhao et al. 2020, arXiv 2006.10738. Real and generated images go through the same policy, each image with draws of its own; the
generator learns through it, and so does not learn the distortions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from adainf.recipe.gan import Augment

Uniform = Callable[[], Tensor]
"""() → one number in [0, 1) for each image, B float32, others at each call: `RowRandom.uniform`."""


def diff_augment(x_BCHW: Tensor, policy: Iterable[Augment], uniform: Uniform) -> Tensor:
    """Images in -1..1, B x C x H x W → the same shape; what has no pixel of its own becomes 0."""
    for name in policy:
        x_BCHW = _POLICIES[name](x_BCHW, uniform)
    return x_BCHW


def _colour(x: Tensor, uniform: Uniform) -> Tensor:
    """Brightness by up to 0.5, saturation 0..2, contrast 0.5..1.5."""
    brightness, saturation, contrast = (uniform()[:, None, None, None] for _ in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def _translation(x_BCHW: Tensor, uniform: Uniform) -> Tensor:
    """Shifted by whole pixels, up to 1/8 of the size each way."""
    rows, columns = (_shifts(size, uniform()) for size in x_BCHW.shape[2:])
    return rows @ x_BCHW @ columns


def _shifts(size: int, uniform_B: Tensor) -> Tensor:
    """Matrices of zeros and ones that shift `size` pixels, B x 1 x size x size: exact, and their backward does not race."""
    reach = round(size / 8)
    shift_B = (uniform_B * (2 * reach + 1)).long() - reach
    place = torch.arange(size, device=uniform_B.device)
    return (place[:, None] - place == shift_B[:, None, None]).float()[:, None]


def _cutout(x_BCHW: Tensor, uniform: Uniform) -> Tensor:
    """A rectangle of half the height and width set to 0, centred anywhere in the image."""
    rows_BH, columns_BW = (_stretch(size, uniform()) for size in x_BCHW.shape[2:])
    return x_BCHW * ~(rows_BH[:, None, :, None] & columns_BW[:, None, None, :])


def _stretch(size: int, uniform_B: Tensor) -> Tensor:
    """B x size: which places lie within a stretch of half of them."""
    first_B1 = (uniform_B * (size + 1)).long()[:, None] - size // 4
    place = torch.arange(size, device=uniform_B.device)
    return (place >= first_B1) & (place < first_B1 + size // 2)


_POLICIES = {"colour": _colour, "translation": _translation, "cutout": _cutout}
