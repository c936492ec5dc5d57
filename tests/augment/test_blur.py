"""Blur is Pillow's `GaussianBlur` but for its rounding: edges extended, a sigma for each image, any shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from adainf.augment.blur import blur
from tests.augment.images import images, unit


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("shape", [(32, 32), (20, 33), (3, 2), (1, 1)])
def test_blur_is_pillows(shape: tuple[int, int], sigma: float) -> None:
    """To 1.2 of 255 on average and 3 at most, on noise: Pillow rounds to whole numbers after each of its six boxes, and where a
    box is so narrow that it changes values by less than a half it changes none."""
    x = images(3, *shape)
    planes = unit(x).transpose(0, 1).contiguous()
    blur(planes, torch.full((3,), sigma))
    theirs = [np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(sigma))) for each in x.numpy()]
    difference = (planes.transpose(0, 1) - unit(torch.from_numpy(np.stack(theirs)))).abs() * 255
    assert difference.mean() < 1.2
    assert difference.max() < 3


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0, 9.0])
@pytest.mark.parametrize("shape", [(13, 9), (2, 1)])
def test_blur_is_pillows_algorithm_without_its_rounding(shape: tuple[int, int], sigma: float) -> None:
    """Loops after `ImagingGaussianBlur` and `ImagingLineBoxBlur` of Pillow's `BoxBlur.c`."""
    variance = sigma**2 / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = 1 / (2 * (whole + part) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2

    def box(line: np.ndarray) -> np.ndarray:
        def at(place: int) -> float:
            return line[min(max(place, 0), len(line) - 1)]

        return np.array(
            [
                inner * sum(at(x + d) for d in range(-whole, whole + 1)) + outer * (at(x - whole - 1) + at(x + whole + 1))
                for x in range(len(line))
            ]
        )

    planes = unit(images(1, *shape)).transpose(0, 1).contiguous()
    expected = planes[0, 0].double().numpy()
    for axis in (1, 1, 1, 0, 0, 0):
        expected = np.apply_along_axis(box, axis, expected)
    blur(planes, torch.tensor([sigma]))
    np.testing.assert_allclose(planes[0, 0].numpy(), expected, atol=1e-5)


def test_each_image_has_its_own_sigma_and_none_is_none() -> None:
    x = unit(images(4)).transpose(0, 1).contiguous()
    sigmas = torch.tensor([0.0, 0.7, 0.0, 1.9])
    out = x.clone()
    blur(out, sigmas)
    assert torch.equal(out[:, ::2], x[:, ::2])
    for row in (1, 3):
        alone = x[:, row : row + 1].clone()
        blur(alone, sigmas[row : row + 1])
        torch.testing.assert_close(out[:, row : row + 1], alone, atol=1e-6, rtol=0)
    assert out[:, 3].std() < out[:, 1].std() < x[:, 1].std()


def test_a_flat_image_stays_and_an_impulse_gets_sigmas_variance() -> None:
    flat = torch.full((3, 1, 9, 14), 0.4)
    blur(flat, torch.tensor([2.0]))
    torch.testing.assert_close(flat, torch.full((3, 1, 9, 14), 0.4), atol=1e-6, rtol=0)
    impulse = torch.zeros(3, 1, 41, 41)
    impulse[:, :, 20, 20] = 1
    blur(impulse, torch.tensor([1.7]))
    offsets = torch.arange(41) - 20.0
    assert (impulse[0, 0].sum(0) * offsets.square()).sum().item() == pytest.approx(1.7**2, rel=1e-4)
