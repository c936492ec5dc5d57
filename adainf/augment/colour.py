"""Colour jitter in a random order for every image, and greyscale.

Brightness, contrast and saturation are blends, factor * x + (1 - factor) * y, with black, with the mean grey of the image
and with the grey of the pixel. Hue rotates the hue of HSV, as in torchvision, or the chroma plane of YIQ. The latter is linear,
so all operations compose to one 3 x 4 matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from adainf.augment.draws import CONTRAST, HUE, SATURATION
from adainf.augment.planes import luma, update_selected

_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = torch.linalg.inv(_YIQ)
_TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
"""Rotation of the chroma plane by 90 degrees, in the direction of increasing HSV hue."""
_LUMA_CHROMA_ROTATED = torch.stack([_RGB[:, :1] @ _YIQ[:1], _RGB[:, 1:] @ _YIQ[1:], _RGB[:, 1:] @ _TURN @ _YIQ[1:]], dim=2)
"""From RGB to the RGB of its luma, of its chroma, and of its chroma rotated by 90 degrees; 3 x 3 x 3."""


def jitter(x_3BP: Tensor, factors_B4: Tensor, order_B4: Tensor) -> None:
    """All operations in each image's order, in place, clamped to 0..1 after each, as torchvision's `ColorJitter` on tensors."""
    is_hue_B4 = (order_B4 == HUE).byte()
    blends = _blends(factors_B4, order_B4.gather(1, is_hue_B4.argsort(dim=1, stable=True)[:, :3]))
    hue_B1 = factors_B4[:, HUE, None]
    hue_after_B = is_hue_B4.argmax(1)

    def rotate_hue(after: int) -> None:
        selected = (hue_after_B == after) & (hue_B1[:, 0] != 0)
        update_selected(x_3BP, selected, lambda some, rows: _rotate_hue(some, hue_B1[rows]))

    rotate_hue(after=0)
    for done, (keep_B1, grey_B1, mean_B1) in enumerate(blends, start=1):
        grey = luma(x_3BP)
        toward = grey.mean(1, keepdim=True).mul_(mean_B1).add(grey.mul_(grey_B1))
        for plane in x_3BP:
            torch.addcmul(toward, plane, keep_B1, out=plane)
        x_3BP.clamp_(0, 1)
        rotate_hue(after=done)


def greyscale(x_3BP: Tensor, selected_B: Tensor) -> None:
    """Convert the selected images to grey, in place."""
    update_selected(x_3BP, selected_B, lambda some, _: luma(some)[None])


def affine_jitter(x_3BP: Tensor, factors_B4: Tensor, grey_B: Tensor) -> Tensor:
    """All operations with hue in YIQ, and greyscale, as one affine colour map per image, clamped once.

    The operations commute: brightness and contrast scale luma and chroma, saturation scales the chroma, hue rotates it, and
    the mean grey of contrast scales with the brightness.
    """
    brightness, contrast, saturation, hue = factors_B4.T
    chroma, angle = saturation * ~grey_B, 2 * math.pi * hue
    parts_3B = torch.stack([torch.ones_like(hue), chroma * angle.cos(), chroma * angle.sin()]) * (brightness * contrast)
    map_33B1 = (_luma_chroma_rotated(x_3BP.device) @ parts_3B)[..., None]
    offset_B1 = (luma(x_3BP.mean(2)) * brightness * (1 - contrast))[:, None]
    mapped = torch.empty_like(x_3BP)
    for out, (red, green, blue) in zip(mapped, map_33B1, strict=True):
        torch.mul(x_3BP[0], red, out=out).addcmul_(x_3BP[1], green).addcmul_(x_3BP[2], blue).add_(offset_B1)
    return mapped.clamp_(0, 1)


@lru_cache
def _luma_chroma_rotated(device: torch.device) -> Tensor:
    return _LUMA_CHROMA_ROTATED.to(device)


def _blends(factors_B4: Tensor, order_B3: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each blend the weights of the image, of the pixel's grey, and of the image's mean grey; each B x 1."""
    keep_B3 = factors_B4.gather(1, order_B3)
    rest_B3 = 1 - keep_B3
    grey_B3, mean_B3 = rest_B3 * (order_B3 == SATURATION), rest_B3 * (order_B3 == CONTRAST)
    return zip(keep_B3.split(1, 1), grey_B3.split(1, 1), mean_B3.split(1, 1), strict=True)


def _rotate_hue(x_3BP: Tensor, turns_B1: Tensor) -> Tensor:
    """Rotate HSV's hue: the maximum and minimum over channels stay the same.

    For a pixel with G >= B the hue, in sixths of a turn from red, is 1 + (G + B - R - least) / chroma, whichever channel is
    largest; B > G mirrors it. Here it is measured from cyan, -3..3.
    """
    red, green, blue = x_3BP
    most = torch.maximum(red, green)
    most = torch.maximum(most, blue, out=most)
    least = torch.minimum(red, green)
    least = torch.minimum(least, blue, out=least)
    chroma = most.sub_(least)
    hue = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=1e-9)).neg_().add_(2).copysign_(blue - green)
    hue.add_(turns_B1, alpha=6)
    hue.sub_((hue / 6).round_(), alpha=6)
    # A channel is least + chroma * max(0, min(1, 2 - its distance on the hue circle)); red is opposite cyan.
    floor, ceiling = least - chroma, torch.add(least, chroma, alpha=2)
    torch.addcmul(floor, chroma, hue.abs().clamp_(1, 2), out=red)
    torch.addcmul(ceiling, chroma, hue.add(1).abs_().clamp_(1, 2), value=-1, out=green)
    torch.addcmul(ceiling, chroma, hue.sub_(1).abs_().clamp_(1, 2), value=-1, out=blue)
    return x_3BP
