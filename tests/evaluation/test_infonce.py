"""Held-out InfoNCE against a plain loop, and whether it sees what it is to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from adainf.augment.profiles import default_views
from adainf.augment.views import augment
from adainf.evaluation.infonce import TEMPERATURE, held_out_infonce
from adainf.models.encoder import Encoder, Normalisation
from adainf.recipe import Augmentation, Backbone

CPU = torch.device("cpu")
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
VIEWS = default_views(Augmentation())


class Pooled(nn.Module):
    """Mean of each quarter of the image: features that crops change a little and other images a lot."""

    num_features = 12

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x_BCHW, 2).flatten(1)


def encoder(backbone: nn.Module) -> Encoder:
    return Encoder(Backbone(name="resnet-small"), backbone, NORMALISATION)  # type: ignore[arg-type] # any module with a width


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_it_is_the_loss_of_a_plain_loop() -> None:
    some = images(20)
    two = augment(torch.from_numpy(some), torch.arange(20), 0, 0, VIEWS, NORMALISATION.mean, NORMALISATION.std)
    z = np.concatenate([Pooled()(view).numpy() for view in two]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(40):
        others = [np.exp(z[i] @ z[j] / TEMPERATURE) for j in range(40) if j != i]
        losses.append(-np.log(np.exp(z[i] @ z[(i + 20) % 40] / TEMPERATURE) / sum(others)))
    assert held_out_infonce(encoder(Pooled()), some, VIEWS, "exact", CPU) == pytest.approx(np.mean(losses), rel=1e-5)


def test_features_that_tell_images_apart_score_below_those_that_do_not() -> None:
    """The same for every image: ln(2 B - 1), the worst that is not perverse."""
    some = images(300)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 4))
    nn.init.zeros_(blind[1].weight)  # type: ignore[arg-type]
    assert held_out_infonce(encoder(blind), some, VIEWS, "exact", CPU) == pytest.approx(np.log(2 * 256 - 1), rel=1e-5)
    mild = default_views(Augmentation(strength=0.1))
    assert held_out_infonce(encoder(Pooled()), some, mild, "exact", CPU) < 5.5
