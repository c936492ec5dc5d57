"""Crop, resize and flip are torchvision's `resized_crop` to float accuracy, whatever the shapes."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from adainf.augment.crop import crop, resampling
from tests.augment.images import images, unit


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("shape", "box", "size"),
    [
        ((32, 32), (3, 5, 17, 21), (32, 32)),
        ((32, 32), (0, 0, 32, 32), (32, 32)),
        ((32, 32), (31, 0, 1, 1), (32, 32)),
        ((32, 32), (2, 4, 30, 27), (12, 12)),
        ((32, 32), (2, 4, 30, 27), (1, 1)),
        ((20, 45), (1, 30, 19, 15), (20, 45)),
        ((45, 20), (7, 0, 33, 20), (9, 50)),
        ((96, 64), (10, 3, 80, 60), (17, 31)),
        ((224, 200), (5, 11, 200, 180), (64, 96)),
        ((1, 7), (0, 2, 1, 3), (1, 7)),
        ((1, 1), (0, 0, 1, 1), (5, 3)),
    ],
)
def test_crops_are_torchvisions(
    shape: tuple[int, int], box: tuple[int, int, int, int], size: tuple[int, int], flip: bool
) -> None:
    x = unit(images(2, *shape))
    boxes = torch.tensor([[0, 0, *shape], box])  # another box beside it: each image has its own
    ours = crop(x.transpose(0, 1), boxes, torch.tensor([False, flip]), *size).transpose(0, 1)
    theirs = [
        tv.resized_crop(image, *where, list(size), InterpolationMode.BICUBIC, antialias=True)
        for image, where in zip(x, boxes.tolist(), strict=True)
    ]
    theirs[1] = theirs[1].flip(2) if flip else theirs[1]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=2e-5, rtol=0)


def test_an_axis_kept_whole_is_the_identity_to_the_bit() -> None:
    for size in (1, 2, 31, 224):
        matrix = resampling(torch.zeros(1), torch.full((1,), float(size)), size, size)
        assert torch.equal(matrix[0], torch.eye(size))
