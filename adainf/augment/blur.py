"""Gaussian blur as in Pillow: three box filters of fractional width along each axis, edges extended."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adainf.augment.planes import separable_product, update_selected
from adainf.runtime.determinism import constant

_BOXES = 3


def blur(x_3BHW: Tensor, sigma_px_B: Tensor) -> None:
    """Blur each image with its own sigma, in place; 0 leaves the image unchanged.

    As Pillow's `ImageFilter.GaussianBlur(radius=sigma)`, without rounding to integers after every box.
    """
    height, width = x_3BHW.shape[2:]

    def blurred(some_3NHW: Tensor, rows_N: Tensor) -> Tensor:
        radius_N = _box_radius(sigma_px_B[rows_N])
        vertical = _three_boxes(radius_N, height)
        horizontal = vertical if height == width else _three_boxes(radius_N, width)
        return separable_product(vertical, some_3NHW, horizontal.mT)

    update_selected(x_3BHW, sigma_px_B > 0, blurred)


def _box_radius(sigma_px: Tensor) -> Tensor:
    """Radius of the extended box filter; three passes have variance sigma^2 (Gwosdek et al., SSVM 2011, equations 11 to 14)."""
    variance = sigma_px.square() / _BOXES
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    return whole + fraction


def _three_boxes(radius_N: Tensor, size: int) -> Tensor:
    """N x `size` x `size`: three passes of the mean over 2 * radius + 1 pixels.

    A pixel's weight is its overlap with the box; the first and the last pixel extend to infinity.
    """
    pixels = torch.arange(size, device=radius_N.device)
    edges = constant((-math.inf, *(edge + 0.5 for edge in range(size - 1)), math.inf), torch.float32, radius_N.device)
    width = 2 * radius_N[:, None, None] + 1
    box = ((edges - pixels[:, None]) / width).add_(0.5).clamp_(0, 1).diff(dim=2)
    return box @ box @ box
