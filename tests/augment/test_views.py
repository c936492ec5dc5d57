"""Views of a batch: each a function of its own image, identity, seed, step and number, and of nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from adainf.augment import views as module
from adainf.augment.profiles import Profile
from adainf.augment.views import Hue, augment
from tests.augment.images import FULL, NOTHING, images, unit

LOCAL = FULL.model_copy(update={"min_scale": 0.05, "max_scale": 0.4, "size_px": 7})
HUES: tuple[Hue, ...] = ("exact", "yiq")


def views(x: Tensor, *profiles: Profile, first: int = 0, step: int = 0, seed: int = 0, hue: Hue = "exact") -> list[Tensor]:
    """Of images numbered from `first`, in 0..1."""
    return augment(x, torch.arange(first, first + len(x)), seed, step, profiles, (0.0,) * 3, (1.0,) * 3, hue)


@pytest.mark.parametrize("hue", HUES)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 20), (1, 1), (5, 1)])
def test_strength_nothing_is_the_identity(height: int, width: int, hue: Hue) -> None:
    x = images(5, height, width)
    view, other = views(x, FULL.scaled(0), NOTHING, hue=hue)
    torch.testing.assert_close(view, unit(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(other, unit(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("hue", HUES)
def test_views_change_more_the_stronger_they_are(hue: Hue) -> None:
    x = images(200, 16, 16)
    changes = [(views(x, FULL.scaled(each), hue=hue)[0] - unit(x)).abs().mean().item() for each in (0, 0.1, 0.3, 0.6, 1, 1.5)]
    assert all(weaker < stronger for weaker, stronger in itertools.pairwise(changes))


def test_two_equal_images_of_a_batch_get_different_views() -> None:
    first, second = views(images(1).expand(2, -1, -1, -1), NOTHING.model_copy(update={"min_scale": 0.2}))[0]
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"step": 1}, {"first": 1}])
def test_another_seed_step_identity_or_number_gives_another_view(changed: dict[str, int]) -> None:
    x = images(1, 16, 16).expand(40, -1, -1, -1)
    first, second = views(x, FULL, FULL)
    for other in (second, views(x, FULL, **changed)[0]):  # type: ignore[arg-type]
        same = (first - other).abs().amax((1, 2, 3)) < 1e-3
        assert not same.any()


@pytest.mark.parametrize("hue", HUES)
def test_a_view_depends_on_its_own_image_and_identity_alone(hue: Hue) -> None:
    x, identities = images(40), torch.arange(40) + (3 << 40)
    profiles = (FULL, FULL, LOCAL)

    def run(rows: Tensor, chosen: tuple[Profile, ...] = profiles) -> list[Tensor]:
        return augment(x[rows], identities[rows], 7, 11, chosen, (0.0,) * 3, (1.0,) * 3, hue)

    whole = run(torch.arange(40))
    for rows in (torch.randperm(40, generator=torch.Generator().manual_seed(0)), torch.tensor([17]), torch.arange(5, 18)):
        for part, view in zip(run(rows), whole, strict=True):
            torch.testing.assert_close(part, view[rows], atol=1e-6, rtol=0)
    torch.testing.assert_close(run(torch.arange(40), profiles[:1])[0], whole[0], atol=1e-6, rtol=0)


@pytest.mark.heavy
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pixels", [1, 500, 5000])
def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, pixels: int, threads: int) -> None:
    x = images(40)
    whole = views(x, FULL, FULL, LOCAL)
    monkeypatch.setattr(module, "CHUNK_PIXELS", pixels)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for part, view in zip(views(x, FULL, FULL, LOCAL), whole, strict=True):
            torch.testing.assert_close(part, view, atol=1e-6, rtol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("hue", HUES)
def test_views_are_floats_of_their_profiles_size_within_the_range(hue: Hue) -> None:
    x = images(30, 16, 24)
    first, local, second = views(x, FULL, LOCAL, FULL, hue=hue)
    assert first.shape == second.shape == (30, 3, 16, 24)
    assert local.shape == (30, 3, 7, 7)
    for view in (first, local, second):
        assert view.dtype is torch.float32
        assert view.is_contiguous()
        assert view.min() >= -1e-6
        assert view.max() <= 1 + 1e-6


def test_a_local_crop_sees_a_small_part() -> None:
    """A ramp image shows which part of an axis was kept: its values span the crop's width."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(500, 64, 1)[..., None].expand(-1, -1, -1, 3).contiguous()
    crop = NOTHING.model_copy(update={"min_scale": 0.05, "max_scale": 0.25, "size_px": 24})
    (out,) = views(ramp, crop)
    spans = (out.amax((1, 2, 3)) - out.amin((1, 2, 3))) * 255 + 1
    assert spans.max() < 64 * (0.25 * 4 / 3) ** 0.5 + 2
    assert spans.min() > 64 * (0.05 * 3 / 4) ** 0.5 - 3


def test_views_of_one_call_have_their_own_profiles() -> None:
    x = images(20)
    plain, mirrored, bright = views(
        x,
        NOTHING,
        NOTHING.model_copy(update={"flip_probability": 1.0}),
        NOTHING.model_copy(update={"solarize_probability": 1.0}),
    )
    torch.testing.assert_close(plain, unit(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(mirrored, unit(x).flip(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(bright, tv.solarize(unit(x), 0.5), atol=1e-6, rtol=0)


def test_views_are_standardised_by_channel() -> None:
    x, mean, std = images(4), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    (view,) = augment(x, torch.arange(4), 0, 0, [NOTHING], mean, std)
    torch.testing.assert_close(view, tv.normalize(unit(x), list(mean), list(std)), atol=1e-5, rtol=0)


def test_operations_come_in_the_papers_order() -> None:
    """Blur before solarisation: the other way round an edge between black and white would vanish."""
    edge = torch.zeros(20, 8, 8, 3, dtype=torch.uint8)
    edge[:, :, 4:] = 255
    profile = NOTHING.model_copy(update={"blur_probability": 1.0, "solarize_probability": 1.0})
    assert (views(edge, profile)[0].amax((1, 2, 3)) > 0.2).float().mean() > 0.5


@pytest.mark.parametrize("hue", HUES)
def test_greyscale_follows_jitter(hue: Hue) -> None:
    profile = NOTHING.model_copy(update={"jitter_probability": 1.0, "hue": 0.5, "grayscale_probability": 1.0})
    (view,) = views(images(6), profile, hue=hue)
    torch.testing.assert_close(view, view[:, :1].expand_as(view), atol=1e-5, rtol=0)
