"""The random parameters of a view: its crop, the factors and order of its colour jitter, whether it is blurred, …

An operation that is not selected for a view gets neutral parameters, where it has such.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adainf.augment.philox import uniform
from adainf.augment.profiles import Profile
from adainf.runtime.determinism import constant

CROP_TRIES = 10
RATIOS = (3 / 4, 4 / 3)
"""Smallest and largest aspect ratio (width / height) of a crop."""
SIGMAS_PX = (0.1, 2.0)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_UNIFORMS = {"areas": CROP_TRIES, "ratios": CROP_TRIES, "place": 2, "factors": 4} | dict.fromkeys(
    ("flip", "jitter", "order", "grey", "blur", "sigma", "solarize"), 1
)
"""Number of uniform random numbers per view, by parameter."""


@dataclass(frozen=True)
class Draws:
    """The parameters of B views."""

    boxes_B4: Tensor
    """Top, left, height and width of the crop in pixels, int64."""
    flip_B: Tensor
    factors_B4: Tensor
    """Of brightness, contrast and saturation (1 is neutral), and turns of hue (0 is neutral)."""
    order_B4: Tensor
    """The colour operations, int64 indices into `factors_B4`, first to last."""
    grey_B: Tensor
    sigma_px_B: Tensor
    """Of the blur; 0: no blur."""
    solarize_B: Tensor

    def __getitem__(self, rows: slice) -> Draws:
        """The parameters of a range of the views."""
        return Draws(*(each[rows] for each in _tensors(self)))


def interleave(draws: Sequence[Draws]) -> Draws:
    """V views of each of B images → B * V views, those of one image adjacent."""
    return Draws(*(torch.stack(group, dim=1).flatten(0, 1) for group in zip(*map(_tensors, draws), strict=True)))


def _tensors(draws: Draws) -> tuple[Tensor, ...]:
    return tuple(vars(draws).values())


def draw(identities_B: Tensor, seed: int, step: int, view: int, profile: Profile, height: int, width: int) -> Draws:
    """The parameters of view number `view` of each image, whose height and width are given in pixels."""
    numbers = uniform(identities_B, seed, step, view, sum(_UNIFORMS.values()))
    u = dict(zip(_UNIFORMS, numbers.split(list(_UNIFORMS.values()), dim=1), strict=True))

    def fixed(*values: float) -> Tensor:
        return constant(values, numbers.dtype, numbers.device)

    def selected(name: str, probability: float) -> Tensor:
        return u[name][:, 0] < probability

    strengths = fixed(profile.brightness, profile.contrast, profile.saturation)
    factors = 1 + (2 * u["factors"][:, :3] - 1) * strengths
    factors = torch.cat([factors.clamp_(min=0), (2 * u["factors"][:, 3:] - 1) * profile.hue], dim=1)
    orders = constant(tuple(itertools.permutations(range(4))), torch.int64, numbers.device)
    sigma = SIGMAS_PX[0] + (SIGMAS_PX[1] - SIGMAS_PX[0]) * u["sigma"][:, 0]
    if profile.min_scale >= 1:  # torchvision would crop the sides of an elongated image
        boxes = constant((0, 0, height, width), torch.int64, numbers.device).expand(len(numbers), 4)
    else:
        size = (constant((float(each),), torch.float64, numbers.device).expand(len(numbers)) for each in (height, width))
        boxes = _boxes(u["areas"], u["ratios"], u["place"], profile, *size)
    return Draws(
        boxes_B4=boxes,
        flip_B=selected("flip", profile.flip_probability),
        factors_B4=torch.where(selected("jitter", profile.jitter_probability)[:, None], factors, fixed(1, 1, 1, 0)),
        order_B4=orders[(u["order"][:, 0] * len(orders)).long()],
        grey_B=selected("grey", profile.grayscale_probability),
        sigma_px_B=sigma * selected("blur", profile.blur_probability),
        solarize_B=selected("solarize", profile.solarize_probability),
    )


def draw_boxes(
    identities_B: Tensor, seed: int, step: int, view: int, profile: Profile, heights_B: Tensor, widths_B: Tensor
) -> Tensor:
    """The boxes of `draw` for images that each have their own size, B x 4; without a random crop the central square."""
    numbers = uniform(identities_B, seed, step, view, sum(_UNIFORMS.values()))
    u = dict(zip(_UNIFORMS, numbers.split(list(_UNIFORMS.values()), dim=1), strict=True))
    heights, widths = heights_B.long(), widths_B.long()
    if profile.min_scale >= 1:
        sides = torch.minimum(heights, widths)
        return torch.stack([(heights - sides) // 2, (widths - sides) // 2, sides, sides], dim=1)
    return _boxes(u["areas"], u["ratios"], u["place"], profile, heights.double(), widths.double())


def _boxes(
    areas_BT: Tensor, ratios_BT: Tensor, place_B2: Tensor, profile: Profile, heights_B: Tensor, widths_B: Tensor
) -> Tensor:
    """Random boxes as in `torchvision.transforms.RandomResizedCrop.get_params`: the first of several tries that fits.

    In float64 as there, so that every device rounds a box in the same way.
    """
    area = (profile.min_scale + (profile.max_scale - profile.min_scale) * areas_BT.double()) * (heights_B * widths_B)[:, None]
    low, high = map(math.log, RATIOS)
    ratio = (low + (high - low) * ratios_BT.double()).exp_()
    widths, heights = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()
    fits = (widths > 0) & (widths <= widths_B[:, None]) & (heights > 0) & (heights <= heights_B[:, None])
    first = fits.byte().argmax(1, keepdim=True)
    found = fits.any(1)
    extent = torch.stack([heights.gather(1, first), widths.gather(1, first)], dim=1)[:, :, 0]
    free = torch.stack([heights_B, widths_B], dim=1) - extent
    random = torch.cat([(place_B2 * (free + 1)).floor_(), extent], dim=1)
    central_height = torch.minimum(heights_B, (widths_B / RATIOS[0]).round_())
    central_width = torch.minimum(widths_B, (heights_B * RATIOS[1]).round_())
    top, left = ((heights_B - central_height) / 2).floor_(), ((widths_B - central_width) / 2).floor_()
    central = torch.stack([top, left, central_height, central_width], dim=1)
    return torch.where(found[:, None], random, central).long()
