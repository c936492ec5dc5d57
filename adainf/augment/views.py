"""Batched augmentation on the device: every image of the batch gets its own draw, in a handful of matrix products.

Crop, resize and flip of an axis-aligned box are separable, so they are one matrix from the left and one from the right.
Brightness, contrast, saturation, hue and greyscale are affine in colour, so a random order of them is one 3 x 4 matrix.
All randomness comes in as numbers, so a view is a function of (seed, step, image, view) on any number of processes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adainf.augment.profiles import Profile

CROP_TRIES = 10
DRAWS_PER_VIEW = 2 * CROP_TRIES + 16
"""Uniform numbers that one view of one image uses."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of R, G and B in luma (ITU-R BT.601), as Pillow and torchvision have them."""
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def draw(seed: int, step: int, images: int) -> NDArray[np.float32]:
    """The uniform numbers of one global batch: images x 2 views x `DRAWS_PER_VIEW`, a function of its arguments alone."""
    return np.random.default_rng([seed, step]).random((images, 2, DRAWS_PER_VIEW), np.float32)


def augment(images_BHWC: Tensor, draws_BU: Tensor, profile: Profile) -> Tensor:
    """One random view of every image.

    `images_BHWC`: uint8, RGB. `draws_BU`: uniform in [0, 1), B x `DRAWS_PER_VIEW`. Returns B x 3 x H x W, 0..1, float32.
    """
    crop, rest = draws_BU[:, : 2 * CROP_TRIES + 2], draws_BU[:, 2 * CROP_TRIES + 2 :]
    flip, jitter, factors, order, grey, blur, sigma, solarize = rest.split([1, 1, 4, 4, 1, 1, 1, 1], dim=1)
    x = images_BHWC.permute(0, 3, 1, 2).float() / 255
    x = _crop_and_flip(x, crop, flip < profile.flip_probability, profile.min_scale)
    x = _colour(x, jitter < profile.jitter_probability, factors, order, grey < profile.grayscale_probability, profile)
    if profile.blur_probability > 0:
        x = _blur(x, blur < profile.blur_probability, 0.1 + 1.9 * sigma)
    if profile.solarize_probability > 0:
        chosen = (solarize < profile.solarize_probability)[:, :, None, None] & (x >= 0.5)
        x = torch.where(chosen, 1 - x, x)
    return x


def _crop_and_flip(x_BCHW: Tensor, u: Tensor, flip_B1: Tensor, min_scale: float) -> Tensor:
    """Random resized crop, bilinear: the first of ten tries that fits the image, as torchvision draws it."""
    areas, ratios, places = u.split([CROP_TRIES, CROP_TRIES, 2], dim=1)
    area = min_scale + (1 - min_scale) * areas
    ratio = torch.exp((2 * ratios - 1) * math.log(4 / 3))
    widths, heights = (area * ratio).sqrt(), (area / ratio).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    pick = fits.float().argmax(1, keepdim=True)
    none_fits = ~fits.any(1, keepdim=True)
    width = widths.gather(1, pick).masked_fill(none_fits, 1.0)
    height = heights.gather(1, pick).masked_fill(none_fits, 1.0)
    left, top = (places * (1 - torch.cat([width, height], 1))).split(1, dim=1)
    size_h, size_w = x_BCHW.shape[2:]
    rows = _interpolation(top, height, size_h)
    columns = _interpolation(left, width, size_w)
    columns = torch.where(flip_B1[:, :, None], columns.flip(1), columns)
    return rows[:, None] @ x_BCHW @ columns.mT[:, None]


def _interpolation(start_B1: Tensor, extent_B1: Tensor, size: int) -> Tensor:
    """B x size x size two-tap matrices that sample `size` points evenly from [start, start + extent] of an axis."""
    centres = (torch.arange(size, device=start_B1.device) + 0.5) / size
    at = ((start_B1 + extent_B1 * centres) * size - 0.5).clamp(0, size - 1)
    pixels = torch.arange(size, device=start_B1.device)
    return (1 - (at[:, :, None] - pixels).abs()).clamp(min=0)


def _colour(
    x_BCHW: Tensor, jitter_B1: Tensor, factors_B4: Tensor, order_B4: Tensor, grey_B1: Tensor, profile: Profile
) -> Tensor:
    """Jitter in a random order and greyscale, composed to one affine map of colour per image; clamped once, to 0..1."""
    device, batch = x_BCHW.device, len(x_BCHW)
    strength = torch.tensor([profile.brightness, profile.contrast, profile.saturation, profile.hue], device=device)
    signed = (2 * factors_B4 - 1) * strength
    scale_B3 = (1 + signed[:, :3]).clamp(min=0)
    luma = torch.tensor(_GREY, device=device)
    to_grey = luma.expand(3, 3)
    identity = torch.eye(3, device=device)
    mean_B3 = x_BCHW.mean((2, 3))
    linear = identity.expand(batch, 3, 3)
    offset = torch.zeros(batch, 3, device=device)

    brightness, contrast, saturation = (scale_B3[:, i, None, None] for i in range(3))
    matrices = torch.stack(
        [
            brightness * identity,
            contrast * identity,
            saturation * identity + (1 - saturation) * to_grey,
            _hue_rotation(signed[:, 3]),
        ],
        dim=1,
    )
    places = order_B4.argsort(1)
    rows = torch.arange(batch, device=device)
    for turn in range(4):
        chosen = places[:, turn]
        matrix = matrices[rows, chosen]
        # Contrast pulls towards the mean grey of the image as it is at its turn.
        mean_grey = ((linear @ mean_B3[:, :, None]).squeeze(2) + offset) @ luma
        shift = torch.where(chosen == 1, (1 - scale_B3[:, 1]) * mean_grey, torch.zeros_like(mean_grey))
        linear = matrix @ linear
        offset = (matrix @ offset[:, :, None]).squeeze(2) + shift[:, None]
    linear = torch.where(jitter_B1[:, :, None], linear, identity)
    offset = torch.where(jitter_B1, offset, torch.zeros_like(offset))
    final = torch.where(grey_B1[:, :, None], to_grey, identity)
    linear, offset = final @ linear, (final @ offset[:, :, None]).squeeze(2)
    flat = torch.baddbmm(offset[:, :, None], linear, x_BCHW.flatten(2))
    return flat.view_as(x_BCHW).clamp(0, 1)


def _hue_rotation(turns_B: Tensor) -> Tensor:
    """B x 3 x 3 rotations of the chroma plane of YIQ by `turns_B` of a turn."""
    yiq = torch.tensor(_YIQ, device=turns_B.device)
    angle = -2 * math.pi * turns_B
    zero, one, cos, sin = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    return torch.linalg.inv(yiq) @ rotation @ yiq


def _blur(x_BCHW: Tensor, chosen_B1: Tensor, sigma_px_B1: Tensor) -> Tensor:
    """Gaussian blur with its own sigma for every chosen image, edges renormalised."""

    def kernel(size: int) -> Tensor:
        distance = torch.arange(size, device=x_BCHW.device)
        squared = (distance[:, None] - distance).square()
        weights = torch.exp(-squared / (2 * sigma_px_B1[:, :, None].square()))
        weights = weights / weights.sum(2, keepdim=True)
        return torch.where(chosen_B1[:, :, None], weights, torch.eye(size, device=x_BCHW.device))[:, None]

    return kernel(x_BCHW.shape[2]) @ x_BCHW @ kernel(x_BCHW.shape[3]).mT
