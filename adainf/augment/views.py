"""Random views of a batch on its device; each view is a function of (seed, step, image, view number) only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from adainf.augment import colour
from adainf.augment.blur import blur
from adainf.augment.crop import crop
from adainf.augment.draws import Draws, draw, interleave
from adainf.augment.planes import to_planes, update_selected
from adainf.augment.profiles import Profile
from adainf.runtime.determinism import constant

Hue = Literal["exact", "yiq"]
CHUNK_PIXELS = 100_000
"""Pixels of views per chunk on a CPU: about a megabyte, which fits a core's cache (measured optimum: 60,000 to 150,000)."""


def augment(
    images_BHWC: Tensor,
    identities_B: Tensor,
    seed: int,
    step: int,
    profiles: Sequence[Profile],
    mean: Sequence[float],
    std: Sequence[float],
    hue: Hue = "exact",
    numbers: Sequence[int] | None = None,
) -> list[Tensor]:
    """One random view of every image for each profile: B x 3 x h x w float32, standardised, on the device of the images.

    `numbers`: those of the views, which address their random parameters; None is 0, 1, … in order.

    `images_BHWC`: uint8, RGB. `identities_B`: int64, a unique number per image, on any device. `mean`, `std`: of R, G and B in
    0..1. `hue`: `exact` rotates HSV's hue and clamps after each operation, as in torchvision; `yiq` is faster.
    """
    height, width = images_BHWC.shape[1:3]
    identities_B = identities_B.to(images_BHWC.device)
    numbers = range(len(profiles)) if numbers is None else numbers
    draws = [draw(identities_B, seed, step, view, each, height, width) for view, each in zip(numbers, profiles, strict=True)]
    sizes = [(each.size_px or height, each.size_px or width) for each in profiles]
    mean_3111, std_3111 = (
        constant(tuple(each), torch.float32, images_BHWC.device)[:, None, None, None] for each in (mean, std)
    )
    views: dict[int, Tensor] = {}
    for size in dict.fromkeys(sizes):
        group = [view for view, each in enumerate(sizes) if each == size]
        out_VBCHW = images_BHWC.new_empty(len(group), len(images_BHWC), 3, *size, dtype=torch.float32)
        stacked = interleave([draws[view] for view in group])
        for chunk in _chunks(images_BHWC, out_VBCHW):
            planes = to_planes(images_BHWC[chunk]).div_(255).repeat_interleave(len(group), dim=1)
            x = _views(planes, stacked[chunk.start * len(group) : chunk.stop * len(group)], size, hue)
            x = x.sub_(mean_3111).div_(std_3111).unflatten(1, (-1, len(group)))
            out_VBCHW[:, chunk] = x.permute(2, 1, 0, 3, 4)
        views |= zip(group, out_VBCHW, strict=True)
    return [views[view] for view in range(len(profiles))]


def augment_crops(
    views_VBHWC: Sequence[Tensor],
    identities_B: Tensor,
    seed: int,
    step: int,
    profiles: Sequence[Profile],
    mean: Sequence[float],
    std: Sequence[float],
    hue: Hue = "exact",
) -> list[Tensor]:
    """As `augment`, for views that are cropped already (`adainf.augment.originals`): one tensor per profile, at its size."""
    views = []
    for view, (images_BHWC, profile) in enumerate(zip(views_VBHWC, profiles, strict=True)):
        height, width = images_BHWC.shape[1:3]
        draws = draw(identities_B.to(images_BHWC.device), seed, step, view, profile, height, width)
        mean_3111, std_3111 = (
            constant(tuple(each), torch.float32, images_BHWC.device)[:, None, None, None] for each in (mean, std)
        )
        out_BCHW = images_BHWC.new_empty(len(images_BHWC), 3, height, width, dtype=torch.float32)
        for chunk in _chunks(images_BHWC, out_BCHW[None]):
            x = to_planes(images_BHWC[chunk]).div_(255)
            update_selected(x, draws.flip_B[chunk], lambda some, _: some.flip(-1))
            out_BCHW[chunk] = _colours(x, draws[chunk], hue).sub_(mean_3111).div_(std_3111).transpose(0, 1)
        views.append(out_BCHW)
    return views


def _chunks(images_BHWC: Tensor, views_VBCHW: Tensor) -> Iterator[slice]:
    """Ranges of images whose views are computed together; on a GPU one range."""
    batch, height, width, _ = images_BHWC.shape
    pixels = len(views_VBCHW) * max(height * width, views_VBCHW[0, 0, 0].numel())
    chunk = max(CHUNK_PIXELS // pixels, 1) if images_BHWC.device.type == "cpu" else batch
    return (slice(start, start + chunk) for start in range(0, batch, chunk))


def _views(x_3BHW: Tensor, draws: Draws, size: tuple[int, int], hue: Hue) -> Tensor:
    """Images in 0..1 → 3 x B x h x w, views in 0..1; the operations in the order of the paper's code."""
    return _colours(crop(x_3BHW, draws.boxes_B4, draws.flip_B, *size).clamp_(0, 1), draws, hue)


def _colours(x: Tensor, draws: Draws, hue: Hue) -> Tensor:
    """All operations after the crop."""
    pixels = x.flatten(2)
    if hue == "yiq":
        x = colour.affine_jitter(pixels, draws.factors_B4, draws.grey_B).view_as(x)
    else:
        colour.jitter(pixels, draws.factors_B4, draws.order_B4)
        colour.greyscale(pixels, draws.grey_B)
    blur(x, draws.sigma_px_B)
    # For x of at least 1/2 the inverse is the smaller one.
    update_selected(x, draws.solarize_B, lambda some, _: torch.minimum(some, 1 - some))
    return x
