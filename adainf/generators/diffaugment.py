"""DiffAugment: differentiable augmentation of the discriminator's images, against overfitting on few real images.

Zhao et al. 2020, arXiv 2006.10738. Real and generated images pass the same policy with independent draws per image. Gradients
flow through it, so the generator does not learn the distortions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from adainf.recipe.gan import Augment

Uniform = Callable[[], Tensor]
"""() → one new number in [0, 1) per image, B float32: `RowRandom.uniform`."""


def diff_augment(x_BCHW: Tensor, policy: Iterable[Augment], uniform: Uniform) -> Tensor:
    """Images in -1..1, B x C x H x W → the same shape; empty pixels become 0."""
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
    """Shift by an integer number of pixels, up to 1/8 of the size in each direction."""
    rows, columns = (_shifts(size, uniform()) for size in x_BCHW.shape[2:])
    return rows @ x_BCHW @ columns


def _shifts(size: int, uniform_B: Tensor) -> Tensor:
    """Permutation-like matrices that shift `size` pixels, B x 1 x size x size: exact, with a deterministic backward."""
    limit = round(size / 8)
    shift_B = (uniform_B * (2 * limit + 1)).long() - limit
    position = torch.arange(size, device=uniform_B.device)
    return (position[:, None] - position == shift_B[:, None, None]).float()[:, None]


def _cutout(x_BCHW: Tensor, uniform: Uniform) -> Tensor:
    """Set a rectangle of half the height and width to 0, centred anywhere in the image."""
    rows_BH, columns_BW = (_interval(size, uniform()) for size in x_BCHW.shape[2:])
    return x_BCHW * ~(rows_BH[:, None, :, None] & columns_BW[:, None, None, :])


def _interval(size: int, uniform_B: Tensor) -> Tensor:
    """B x size: which positions lie within an interval of half the size."""
    first_B1 = (uniform_B * (size + 1)).long()[:, None] - size // 4
    position = torch.arange(size, device=uniform_B.device)
    return (position >= first_B1) & (position < first_B1 + size // 2)


_POLICIES = {"colour": _colour, "translation": _translation, "cutout": _cutout}
