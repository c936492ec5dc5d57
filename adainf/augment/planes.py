"""Images as three float planes, R, G and B, so that colour operations run over contiguous memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601), the first rounded as in torchvision."""


def to_planes(images_BHWC: Tensor) -> Tensor:
    """B x H x W x 3 uint8 → 3 x B x H x W float32, still 0..255."""
    planes = torch.empty(3, *images_BHWC.shape[:3], device=images_BHWC.device)
    return planes.copy_(images_BHWC.permute(3, 0, 1, 2))


def luma(x_3BP: Tensor) -> Tensor:
    """Grey value of each pixel: 3 x … → …"""
    red, green, blue = _LUMA
    return torch.mul(x_3BP[0], red).add_(x_3BP[1], alpha=green).add_(x_3BP[2], alpha=blue)


def separable_product(rows_BOH: Tensor, x_3BHW: Tensor, columns_BWO: Tensor) -> Tensor:
    """Multiply rows and columns of each image by its two matrices, which its three planes share."""
    out = x_3BHW.new_empty(*x_3BHW.shape[:2], rows_BOH.shape[1], columns_BWO.shape[2])
    for plane, into in zip(x_3BHW, out, strict=True):
        torch.bmm(rows_BOH, plane @ columns_BWO, out=into)
    return out


def update_selected(x_3BX: Tensor, selected_B: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the selected images by `operation(images, their rows)`, which returns 3 x n x … or one grey plane 1 x n x …"""
    if x_3BX.device.type != "cpu":  # counting the selected would synchronise with the device, so compute all
        selected = selected_B.view(-1, *[1] * (x_3BX.ndim - 2))
        updated = operation(x_3BX.clone(), torch.arange(len(selected_B), device=x_3BX.device))
        x_3BX.copy_(torch.where(selected, updated, x_3BX))
        return
    rows = selected_B.nonzero()[:, 0]
    if len(rows):
        some = x_3BX.index_select(1, rows)
        x_3BX.index_copy_(1, rows, operation(some, rows).expand_as(some))
