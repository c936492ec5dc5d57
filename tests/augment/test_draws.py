"""Parameters have the distributions of torchvision's, and an operation that is not chosen those that change nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from adainf.augment.draws import Draws, draw
from adainf.augment.profiles import Profile
from tests.augment.images import FULL, NOTHING


def drawn(profile: Profile, count: int = 20_000, height: int = 32, width: int = 32, step: int = 0) -> Draws:
    return draw(torch.arange(count), 0, step, 0, profile, height, width)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest difference of two empirical distributions."""
    at = np.union1d(a, b)
    both = [np.searchsorted(np.sort(each), at, side="right") / len(each) for each in (a, b)]
    return float(np.abs(both[0] - both[1]).max())


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (32, 32, (0.08, 1.0)),
        (32, 32, (0.05, 0.4)),
        (24, 48, (0.08, 1.0)),
        (20, 90, (0.6, 1.0)),
        (90, 20, (0.6, 1.0)),
        (3, 2, (0.1, 1.0)),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    count = 6000
    profile = NOTHING.model_copy(update={"min_scale": scale[0], "max_scale": scale[1]})
    ours = drawn(profile, count, height, width).boxes_B4
    torch.manual_seed(0)
    random.seed(0)
    image = torch.empty(3, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    for a, b in ((ours, theirs), (ours[:, 2:].prod(1, keepdim=True), theirs[:, 2:].prod(1, keepdim=True))):
        for column in range(a.shape[1]):
            assert distance(a[:, column].numpy(), b[:, column].numpy()) < 1.95 * (2 / count) ** 0.5  # 1 in 1000


def test_scale_one_keeps_the_whole_of_any_image() -> None:
    assert (drawn(NOTHING, 50, 20, 90).boxes_B4 == torch.tensor([0, 0, 20, 90])).all()


def test_jitter_has_the_ranges_asked_for_and_leaves_the_others_alone() -> None:
    draws = drawn(FULL.model_copy(update={"brightness": 0.4, "saturation": 1.5, "contrast": 0.8, "hue": 0.2}))
    unchanged = (draws.factors_B4 == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(1)
    assert unchanged.float().mean().item() == pytest.approx(0.2, abs=0.015)
    brightness, contrast, saturation, hue = draws.factors_B4[~unchanged].T
    for values, low, high in ((brightness, 0.6, 1.4), (contrast, 0.2, 1.8), (hue, -0.2, 0.2)):
        assert values.min().item() == pytest.approx(low, abs=0.001)
        assert values.max().item() == pytest.approx(high, abs=0.001)
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert (saturation == 0).float().mean().item() == pytest.approx(1 / 6, abs=0.015)  # -0.5..0 of -0.5..2.5


def test_every_order_is_as_frequent_among_those_jittered() -> None:
    draws = drawn(FULL)
    orders, counts = draws.order_B4[draws.factors_B4[:, 3] != 0].unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert (orders.sort(1).values == torch.arange(4)).all()
    expected = counts.sum() / 24
    assert ((counts - expected).square() / expected).sum() < 50  # chi-squared of 23 degrees of freedom


def test_what_is_drawn_of_a_view_is_independent() -> None:
    draws = drawn(FULL)
    columns = [draws.flip_B, draws.factors_B4[:, 3] != 0, draws.grey_B, draws.sigma_px_B > 0, draws.solarize_B]
    columns += [draws.boxes_B4[:, 0], draws.boxes_B4[:, 2:].prod(1), draws.order_B4[:, 0], *draws.factors_B4.abs().T[:3]]
    correlation = np.corrcoef(torch.stack([each.double() for each in columns]).numpy())
    correlation[5, 6] = correlation[6, 5] = 0  # a large crop has little room
    assert np.abs(correlation - np.eye(len(columns))).max() < 4.5 / np.sqrt(20_000)


def test_each_choice_has_its_probability_and_the_blur_its_sigmas() -> None:
    profile = FULL.model_copy(update={"grayscale_probability": 0.3, "solarize_probability": 0.6, "flip_probability": 0.9})
    draws = drawn(profile)
    blurred = draws.sigma_px_B > 0
    for chosen, probability in ((draws.grey_B, 0.3), (draws.solarize_B, 0.6), (draws.flip_B, 0.9), (blurred, 0.5)):
        assert chosen.float().mean().item() == pytest.approx(probability, abs=0.015)
    sigma = draws.sigma_px_B[blurred].numpy()
    assert distance(sigma, np.linspace(0.1, 2.0, 100_000)) < 0.02


def test_another_step_draws_all_anew() -> None:
    a, b = drawn(FULL), drawn(FULL, step=1)
    assert (a.boxes_B4 == b.boxes_B4).all(1).float().mean() < 0.02
    assert (a.flip_B == b.flip_B).float().mean().item() == pytest.approx(0.5, abs=0.015)
    assert (a.order_B4 == b.order_B4).all(1).float().mean().item() == pytest.approx(1 / 24, abs=0.01)
