"""Batched views: an independent draw for every image, the identity at strength nothing, and torchvision's colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from adainf.augment.profiles import Profile, default_views
from adainf.augment.views import CROP_TRIES, DRAWS_PER_VIEW, augment, draw
from adainf.recipe import Augmentation

NOTHING = Profile(
    min_scale=1.0,
    jitter_probability=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    grayscale_probability=0,
    blur_probability=0,
    solarize_probability=0,
    flip_probability=0,
)
AFTER_CROP = 2 * CROP_TRIES + 2


def images(count: int, height: int = 12, width: int = 12, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(draw(seed, 0, count)[:, 0])


def whole_image(u: Tensor) -> Tensor:
    """The same draws, but with a crop of the whole image: area 1 and ratio 1 at the first try."""
    u = u.clone()
    u[:, 0] = 1.0
    u[:, CROP_TRIES] = 0.5
    return u


def unit(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 20)])
def test_strength_nothing_is_the_identity(height: int, width: int) -> None:
    x = images(5, height, width)
    torch.testing.assert_close(augment(x, whole_image(draws(5)), NOTHING), unit(x), atol=1e-5, rtol=0)


def test_two_equal_images_of_a_batch_get_different_views() -> None:
    x = images(1).expand(2, -1, -1, -1)
    first, second = augment(x, draws(2), default_views(Augmentation())[0])
    assert not torch.allclose(first, second)


def test_a_view_depends_on_its_own_draw_alone() -> None:
    x, u = images(6), draws(6)
    profile = default_views(Augmentation())[0]
    whole = augment(x, u, profile)
    assert whole.dtype is torch.float32
    assert (whole >= 0).all()
    assert (whole <= 1).all()
    torch.testing.assert_close(augment(x[2:4], u[2:4], profile), whole[2:4], atol=1e-6, rtol=0)


def test_draws_are_a_function_of_seed_and_step() -> None:
    assert draw(1, 5, 4).shape == (4, 2, DRAWS_PER_VIEW)
    np.testing.assert_array_equal(draw(1, 5, 4), draw(1, 5, 4))
    assert not (draw(1, 5, 4) == draw(1, 6, 4)).any()
    assert not (draw(1, 5, 4) == draw(2, 5, 4)).any()


def test_flip_mirrors_the_columns() -> None:
    x = images(3)
    flipped = augment(x, whole_image(draws(3)), NOTHING.model_copy(update={"flip_probability": 1.0}))
    torch.testing.assert_close(flipped, unit(x).flip(3), atol=1e-5, rtol=0)


def test_crops_cover_the_areas_asked_for() -> None:
    """A ramp image shows which part of an axis was kept: its values span the crop's width."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(2000, 64, 1)[..., None].expand(-1, -1, -1, 3).contiguous()
    out = augment(ramp, draws(2000), NOTHING.model_copy(update={"min_scale": 0.25}))
    rows = augment(ramp.transpose(1, 2).contiguous(), draws(2000), NOTHING.model_copy(update={"min_scale": 0.25}))
    widths = (out.amax((1, 2, 3)) - out.amin((1, 2, 3))) * 255 / 63
    heights = (rows.amax((1, 2, 3)) - rows.amin((1, 2, 3))) * 255 / 63
    areas = widths * heights
    assert areas.min() > 0.2  # a pixel's half is lost on either side
    assert areas.max() <= 1.01
    assert areas.mean().item() == pytest.approx(0.6, abs=0.04)  # uniform on 0.25..1, a little less where 10 tries decide


@pytest.mark.parametrize(
    ("name", "place", "reference"),
    [
        ("brightness", 0, tv.adjust_brightness),
        ("contrast", 1, tv.adjust_contrast),
        ("saturation", 2, tv.adjust_saturation),
    ],
)
@pytest.mark.parametrize("u", [0.1, 0.5, 0.9])
def test_one_colour_operation_is_torchvisions(name: str, place: int, reference: object, u: float) -> None:
    x = images(4) // 2 + 40  # away from 0 and 255, where torchvision clamps after each operation
    numbers = whole_image(draws(4))
    numbers[:, AFTER_CROP + 2 + place] = u
    profile = NOTHING.model_copy(update={"jitter_probability": 1.0, name: 0.4})
    factor = 1 + 0.4 * (2 * u - 1)
    expected = reference(unit(x), factor)  # type: ignore[operator]
    torch.testing.assert_close(augment(x, numbers, profile), expected, atol=2e-4, rtol=0)


def test_greyscale_is_torchvisions_and_whole_hue_turns_change_nothing() -> None:
    x = images(4)
    u = whole_image(draws(4))
    grey = augment(x, u, NOTHING.model_copy(update={"grayscale_probability": 1.0}))
    torch.testing.assert_close(grey, tv.rgb_to_grayscale(unit(x), 3), atol=2e-4, rtol=0)
    u[:, AFTER_CROP + 5] = 1.0  # +1 turn
    turned = augment(x, u, NOTHING.model_copy(update={"jitter_probability": 1.0, "hue": 1.0}))
    torch.testing.assert_close(turned, unit(x), atol=2e-3, rtol=0)


def test_hue_turns_the_same_way_as_torchvision() -> None:
    red = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    red[..., 0] = 200
    u = whole_image(draws(1))
    u[:, AFTER_CROP + 5] = 0.75  # a rotation of +0.1 with hue 0.2
    ours = augment(red, u, NOTHING.model_copy(update={"jitter_probability": 1.0, "hue": 0.2}))[0, :, 0, 0]
    theirs = tv.adjust_hue(unit(red), 0.1)[0, :, 0, 0]
    assert ours.argsort().tolist() == theirs.argsort().tolist()  # red, then green, then blue: towards yellow


def test_blur_keeps_a_flat_image_and_smooths_noise() -> None:
    flat = torch.full((2, 12, 12, 3), 99, dtype=torch.uint8)
    profile = NOTHING.model_copy(update={"blur_probability": 1.0})
    torch.testing.assert_close(augment(flat, whole_image(draws(2)), profile), unit(flat), atol=1e-5, rtol=0)
    noise = images(2)
    assert augment(noise, whole_image(draws(2)), profile).std() < unit(noise).std()


def test_solarize_inverts_the_bright_half() -> None:
    x = images(3)
    out = augment(x, whole_image(draws(3)), NOTHING.model_copy(update={"solarize_probability": 1.0}))
    torch.testing.assert_close(out, tv.solarize(unit(x), 0.5), atol=1e-5, rtol=0)


def test_weaker_profiles_change_less() -> None:
    x, u = images(64), draws(64)
    strong = default_views(Augmentation())[0]
    changes = [
        (augment(x, u, strong.weakened(scale, jitter)) - unit(x)).abs().mean() for scale, jitter in ((0.08, 1.0), (0.5, 0.2))
    ]
    assert changes[1] < changes[0]


def test_jitter_changes_the_share_of_images_that_its_probability_says() -> None:
    x, u = images(2000, 4, 4), whole_image(draws(2000))
    profile = NOTHING.model_copy(update={"jitter_probability": 0.4, "brightness": 0.4})
    changed = ((augment(x, u, profile) - unit(x)).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
    assert changed == pytest.approx(0.4, abs=0.04)


def test_colour_operations_come_in_the_order_that_was_drawn() -> None:
    """Brightness then contrast leaves another mean than contrast then brightness, where values clamp nowhere."""
    x = images(2) // 4 + 60
    u = whole_image(draws(2))
    u[:, AFTER_CROP + 2] = 1.0  # brightness x 1.4
    u[:, AFTER_CROP + 4] = 0.5  # no saturation
    u[:, AFTER_CROP + 3] = 0.0  # contrast x 0.6
    profile = NOTHING.model_copy(update={"jitter_probability": 1.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.0})
    order = slice(AFTER_CROP + 6, AFTER_CROP + 10)
    u[:, order] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    first = augment(x, u, profile)
    torch.testing.assert_close(first, tv.adjust_contrast(tv.adjust_brightness(unit(x), 1.4), 0.6), atol=3e-4, rtol=0)
    hue = torch.tensor([0.2, 0.1, 0.3, 0.4])
    u[:, order] = hue
    torch.testing.assert_close(
        augment(x, u, profile), tv.adjust_brightness(tv.adjust_contrast(unit(x), 0.6), 1.4), atol=3e-4, rtol=0
    )


def test_crops_have_the_aspect_ratios_asked_for() -> None:
    """Of crops small enough to fit whatever their ratio: ln(width / height) is uniform on +- ln(4/3)."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(3000, 64, 1)[..., None].expand(-1, -1, -1, 3).contiguous()
    u = draws(3000)
    u[:, :CROP_TRIES] = 0.0  # area 0.25
    profile = NOTHING.model_copy(update={"min_scale": 0.25})
    widths = augment(ramp, u, profile)
    heights = augment(ramp.transpose(1, 2).contiguous(), u, profile)
    spans = [(v.amax((1, 2, 3)) - v.amin((1, 2, 3))) * 255 + 0.5 for v in (widths, heights)]
    ratios = (spans[0] / spans[1]).log()
    assert ratios.quantile(0.05).item() == pytest.approx(-0.9 * np.log(4 / 3), abs=0.03)
    assert ratios.quantile(0.5).item() == pytest.approx(0, abs=0.03)
    assert ratios.quantile(0.95).item() == pytest.approx(0.9 * np.log(4 / 3), abs=0.03)
