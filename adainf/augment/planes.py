"""A chunk of images as three planes of floats, R, G and B: operations on colour then run over contiguous memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601), the first rounded as torchvision has it."""


def to_planes(images_BHWC: Tensor) -> Tensor:
    """B x H x W x 3 uint8 → 3 x B x H x W float32, still 0..255."""
    planes = torch.empty(3, *images_BHWC.shape[:3], device=images_BHWC.device)
    return planes.copy_(images_BHWC.permute(3, 0, 1, 2))


def luma(x_3BP: Tensor) -> Tensor:
    """The grey of each pixel: 3 x … → …"""
    red, green, blue = _LUMA
    return torch.mul(x_3BP[0], red).add_(x_3BP[1], alpha=green).add_(x_3BP[2], alpha=blue)


def product(rows_BOH: Tensor, x_3BHW: Tensor, columns_BWO: Tensor) -> Tensor:
    """Rows and columns of every plane of an image by the image's matrices, which are the same for its three planes."""
    out = x_3BHW.new_empty(*x_3BHW.shape[:2], rows_BOH.shape[1], columns_BWO.shape[2])
    for plane, into in zip(x_3BHW, out, strict=True):
        torch.bmm(rows_BOH, plane @ columns_BWO, out=into)
    return out


def change(x_3BX: Tensor, chosen_B: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the chosen images by `operation(images, their rows)`, which gives 3 x n x … or one grey plane 1 x n x …"""
    if x_3BX.device.type != "cpu":  # how many are chosen is known only once the device has come so far: all, then
        chosen = chosen_B.view(-1, *[1] * (x_3BX.ndim - 2))
        made = operation(x_3BX.clone(), torch.arange(len(chosen_B), device=x_3BX.device))
        x_3BX.copy_(torch.where(chosen, made, x_3BX))
        return
    rows = chosen_B.nonzero()[:, 0]
    if len(rows):
        some = x_3BX.index_select(1, rows)
        x_3BX.index_copy_(1, rows, operation(some, rows).expand_as(some))
