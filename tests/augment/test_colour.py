"""Colour jitter is torchvision's, operation by operation and in every order; in YIQ but for hue and the clamps between."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from adainf.augment.colour import affine_jitter, greyscale, jitter
from adainf.augment.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION
from tests.augment.images import images, unit

OPERATIONS: dict[int, Callable[[Tensor, float], Tensor]] = {
    BRIGHTNESS: tv.adjust_brightness,
    CONTRAST: tv.adjust_contrast,
    SATURATION: tv.adjust_saturation,
    HUE: tv.adjust_hue,
}
NOTHING = (1.0, 1.0, 1.0, 0.0)
PARITY = 0.01 / 255
"""Mean absolute difference that is asked for."""


def jittered(x_BCHW: Tensor, factors: tuple[float, ...], order: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    planes = x_BCHW.transpose(0, 1).contiguous()
    jitter(planes.flatten(2), torch.tensor([factors]).repeat(len(x_BCHW), 1), torch.tensor([order]).repeat(len(x_BCHW), 1))
    return planes.transpose(0, 1)


def affine(x_BCHW: Tensor, factors: tuple[float, ...], grey: bool = False) -> Tensor:
    planes, count = x_BCHW.transpose(0, 1).contiguous(), len(x_BCHW)
    out = affine_jitter(planes.flatten(2), torch.tensor([factors]).repeat(count, 1), torch.tensor([grey]).repeat(count))
    return out.view_as(planes).transpose(0, 1)


def only(operation: int, factor: float) -> tuple[float, ...]:
    return tuple(factor if each == operation else unchanged for each, unchanged in enumerate(NOTHING))


@pytest.mark.parametrize(
    ("operation", "factor"),
    [(each, factor) for each in (BRIGHTNESS, CONTRAST, SATURATION) for factor in (0.0, 0.2, 0.9, 1.3, 1.8)]
    + [(HUE, turns) for turns in (-0.5, -0.2, -0.05, 0.1, 0.2, 0.35, 0.5)],
)
def test_one_operation_is_torchvisions(operation: int, factor: float) -> None:
    x = unit(images(8, 16, 20))
    difference = (jittered(x, only(operation, factor)) - OPERATIONS[operation](x, factor)).abs()
    assert difference.mean() < PARITY
    assert difference.max() < 1e-5


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_whole_sequences_are_torchvisions(order: tuple[int, ...]) -> None:
    """With factors so strong that the clamp after each operation matters."""
    x, factors = unit(images(4, 16, 20)), (1.6, 1.7, 1.8, -0.17)
    theirs = x
    for operation in order:
        theirs = OPERATIONS[operation](theirs, factors[operation])
    difference = (jittered(x, factors, order) - theirs).abs()
    assert difference.mean() < PARITY
    # Where the pixel before was grey but for the last bit, its hue is noise, and so may one value be.
    assert difference.quantile(0.999) < 1e-5


def test_each_image_has_its_own_factors_and_order() -> None:
    x = unit(images(24, 8, 8))
    orders = torch.tensor(list(itertools.permutations(range(4))))
    factors = torch.rand(24, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 0.4]) + 0.05
    planes = x.transpose(0, 1).contiguous()
    jitter(planes.flatten(2), factors, orders)
    for image, ours, each, order in zip(x, planes.transpose(0, 1), factors.tolist(), orders.tolist(), strict=True):
        torch.testing.assert_close(ours, jittered(image[None], tuple(each), tuple(order))[0], atol=1e-6, rtol=0)


def test_nothing_changes_nothing_in_either_form() -> None:
    x = unit(images(3))
    assert torch.equal(jittered(x, NOTHING), x)
    torch.testing.assert_close(affine(x, NOTHING), x, atol=1e-6, rtol=0)


def test_greyscale_is_torchvisions_for_those_chosen() -> None:
    x = unit(images(3))
    planes = x.transpose(0, 1).contiguous()
    greyscale(planes, torch.tensor([True, False, True]))
    expected = tv.rgb_to_grayscale(x, 3).clone()
    expected[1] = x[1]
    torch.testing.assert_close(planes.transpose(0, 1), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(affine(x, NOTHING, grey=True), tv.rgb_to_grayscale(x, 3), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("operation", "factor"), [(BRIGHTNESS, 0.7), (CONTRAST, 0.4), (CONTRAST, 1.2), (SATURATION, 0.3)])
def test_one_operation_in_yiq_is_torchvisions(operation: int, factor: float) -> None:
    x = unit(images(4) // 2 + 60)  # away from 0 and 255, where torchvision clamps after each operation
    torch.testing.assert_close(affine(x, only(operation, factor)), OPERATIONS[operation](x, factor), atol=2e-4, rtol=0)


@pytest.mark.parametrize("order", [(BRIGHTNESS, CONTRAST, SATURATION), (SATURATION, CONTRAST, BRIGHTNESS)])
def test_in_yiq_all_orders_are_one_where_nothing_clamps(order: tuple[int, ...]) -> None:
    x, factors = unit(images(4) // 4 + 90), (1.1, 0.6, 1.3, 0.0)
    theirs = x
    for operation in order:
        theirs = OPERATIONS[operation](theirs, factors[operation])
    torch.testing.assert_close(affine(x, factors), theirs, atol=5e-4, rtol=0)


@pytest.mark.parametrize("turns", [-0.2, -0.1, 0.1, 0.2])
def test_hue_in_yiq_turns_the_way_of_hsv_and_keeps_luma(turns: float) -> None:
    x = 0.45 + 0.1 * unit(images(4))  # nothing clamps
    ours, backwards, theirs = affine(x, only(HUE, turns)), affine(x, only(HUE, -turns)), tv.adjust_hue(x, turns)
    assert (ours - theirs).abs().mean() < 0.5 * (backwards - theirs).abs().mean()
    weights = torch.tensor([0.299, 0.587, 0.114])
    luma = [torch.einsum("bchw,c->bhw", each, weights) for each in (ours, x)]
    torch.testing.assert_close(luma[0], luma[1], atol=1e-5, rtol=0)
