"""Crop, antialiased bicubic resize and flip as two matrix products: resampling an axis-aligned box is separable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adainf.augment.planes import separable_product


def crop(x_3BHW: Tensor, boxes_B4: Tensor, flip_B: Tensor, height: int, width: int) -> Tensor:
    """Crop a box (top, left, height, width, in pixels) of each image, resize it, and flip some: 3 x B x `height` x `width`.

    As `torchvision.transforms.v2.functional.resized_crop` with `BICUBIC` and `antialias=True`.
    """
    top, left, box_height, box_width = boxes_B4.float().unbind(1)
    rows = resampling(top, box_height, x_3BHW.shape[2], height)
    right_to_left = torch.where(flip_B, -box_width, box_width)
    columns = resampling(torch.where(flip_B, left + box_width, left), right_to_left, x_3BHW.shape[3], width)
    return separable_product(rows.mT, x_3BHW, columns)


def resampling(start_B: Tensor, extent_B: Tensor, size: int, new_size: int) -> Tensor:
    """B x `size` x `new_size` matrices that resample an axis of `size` pixels to `new_size` between start and start + extent.

    Cubic convolution (Keys 1981, a = -1/2), stretched by the downscaling factor and truncated at the box's edges. A negative
    extent flips the axis.
    """
    device = start_B.device
    start_B1, scale_B1 = start_B[:, None], extent_B[:, None] / new_size
    stretch_B1 = scale_B1.abs().clamp_(min=1)
    centre_BO = start_B1 + (torch.arange(new_size, device=device) + 0.5) * scale_B1
    taps = math.ceil(4 * max(1, size / new_size))
    pixel_TBO = (centre_BO - 2 * stretch_B1 + 0.5).floor_() + torch.arange(taps, device=device)[:, None, None]
    # With t the distance and q = max(1 - t, 0), twice the kernel is (2 - t)^2 (1 - t) + 2 q^2 (1 - 2 q) up to t = 2.
    r = ((pixel_TBO - (centre_BO - 0.5)) / stretch_B1).abs_().neg_().add_(1).clamp_(min=-1)
    q = r.clamp(min=0)
    weights = (r + 1).square_().mul_(r).add_(q.square().mul_(1 - 2 * q), alpha=2)
    end_B1 = start_B1 + extent_B[:, None]
    weights *= (pixel_TBO >= torch.minimum(start_B1, end_B1)) & (pixel_TBO < torch.maximum(start_B1, end_B1))
    weights /= weights.sum(0)
    pixel_BTO = pixel_TBO.clamp_(0, size - 1).long().transpose(0, 1)
    return weights.new_zeros(len(start_B), size, new_size).scatter_add_(1, pixel_BTO, weights.transpose(0, 1))
