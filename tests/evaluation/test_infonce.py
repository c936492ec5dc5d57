"""InfoNCE against a plain loop, and whether it and its gap see what they are to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from adainf.augment.profiles import default_views
from adainf.augment.views import augment
from adainf.evaluation.infonce import TEMPERATURE, batch_infonce, infonce, infonce_gap
from adainf.evaluation.linear import epoch_order
from adainf.evaluation.scores import InfoNceGap
from adainf.models.encoder import Encoder, Normalisation
from adainf.recipe import Augmentation, Backbone
from tests.evaluation.encoders import make_encoder
from tests.processes import run_on_ranks

CPU = torch.device("cpu")
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
VIEWS, MILD = default_views(Augmentation()), default_views(Augmentation(strength=0.1))

Array = NDArray[Any]


class Pooled(nn.Module):
    """Mean of each quarter of the image: features that crops change a little and other images a lot."""

    num_features = 12

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x_BCHW, 2).flatten(1)


def encoder(backbone: nn.Module) -> Encoder:
    return Encoder(Backbone(name="resnet-small"), backbone, NORMALISATION)  # type: ignore[arg-type] # any module with a width


def images(count: int) -> Array:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def loop(z: Array) -> float:
    """NT-Xent of 2 B rows, row by row; the second half are the other views."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        others = [np.exp(z[i] @ z[j] / TEMPERATURE) for j in range(len(z)) if j != i]
        losses.append(-np.log(np.exp(z[i] @ z[(i + len(z) // 2) % len(z)] / TEMPERATURE) / sum(others)))
    return float(np.mean(losses))


def noisy(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Two views each of so many images, as features."""
    clean = rng.normal(size=(count, 6))
    return clean + 0.4 * rng.normal(size=clean.shape), clean + 0.4 * rng.normal(size=clean.shape)


def test_it_is_the_loss_of_a_plain_loop() -> None:
    """In whatever order the images come: the loss is of all of them."""
    some = images(20)[epoch_order(20, 0)]
    two = augment(torch.from_numpy(some), torch.arange(20), 0, 0, VIEWS, NORMALISATION.mean, NORMALISATION.std)
    expected = loop(np.concatenate([Pooled()(view).numpy() for view in two]).astype(np.float64))
    assert infonce(encoder(Pooled()), images(20), VIEWS, "exact", CPU).loss == pytest.approx(expected, rel=1e-5)


def test_features_that_tell_images_apart_score_below_those_that_do_not() -> None:
    """The same for every image: ln(2 B - 1), the worst that is not perverse."""
    some = images(300)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 4))
    nn.init.zeros_(blind[1].weight)  # type: ignore[arg-type]
    found = infonce(encoder(blind), some, VIEWS, "exact", CPU)
    assert found.loss == pytest.approx(np.log(2 * 256 - 1), rel=1e-5)
    assert found.standard_error == pytest.approx(0, abs=1e-6)
    assert infonce(encoder(Pooled()), some, MILD, "exact", CPU).loss < 5.5


def test_the_variance_is_that_of_leaving_out_each_image() -> None:
    one, other = noisy(np.random.default_rng(1), 12)
    loss, variance = (float(each) for each in batch_infonce(torch.from_numpy(one), torch.from_numpy(other)))
    assert loss == pytest.approx(loop(np.concatenate([one, other])), rel=1e-9)
    left = [loop(np.concatenate([np.delete(view, image, axis=0) for view in (one, other)])) for image in range(12)]
    assert variance == pytest.approx(11 / 12 * np.sum((left - np.mean(left)) ** 2), rel=1e-9)


def test_the_standard_error_is_the_deviation_over_other_images() -> None:
    """Would catch rows, or views, that are taken as independent: they share negatives, and the images."""
    rng = np.random.default_rng(2)
    found = np.array([[float(each) for each in batch_infonce(*map(torch.from_numpy, noisy(rng, 64)))] for _ in range(400)])
    assert np.sqrt(found[:, 1].mean()) == pytest.approx(found[:, 0].std(), rel=0.1)


# ----------------------------------------------------------------------------------------------------------------- the gap


class Memoriser(nn.Module):
    """The nearest of the images that it knows, as one number of each: a lookup, which discriminates others only by accident."""

    def __init__(self, known: Array) -> None:
        super().__init__()
        self.num_features = len(known)
        x = torch.from_numpy(known).permute(0, 3, 1, 2) / 255
        self.known = Pooled()(NORMALISATION.apply(x))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(Pooled()(x_BCHW), self.known).argmin(1)
        return nn.functional.one_hot(nearest, self.num_features).float()


def gap(backbone: nn.Module, train: Array, held_out: Array) -> InfoNceGap:
    found = infonce_gap(encoder(backbone), train, held_out, MILD, "exact", CPU)
    assert found is not None
    return found


def test_a_memoriser_has_a_gap_and_sides_exchanged_turn_its_sign() -> None:
    train, held_out = images(200)[:100], images(200)[100:]
    found, turned = gap(Memoriser(train), train, held_out), gap(Memoriser(train), held_out, train)
    assert found.interval[0] > 0.1
    assert found.gap == pytest.approx(found.held_out - found.train, abs=2e-6)
    assert (turned.train, turned.held_out, turned.gap) == (found.held_out, found.train, -found.gap)
    assert turned.interval == (-found.interval[1], -found.interval[0])


@pytest.mark.heavy
def test_an_encoder_that_has_seen_neither_side_has_none_within_its_interval() -> None:
    """As often as a 95 % interval is to hold: on 40 draws of the two sides 33 times at least (P < 1 in 1,000 by luck)."""
    backbone, some, rng = make_encoder().backbone, images(400), np.random.default_rng(3)
    held = 0
    for _ in range(40):
        sides = rng.permutation(400)[:120]
        low, high = gap(backbone, some[sides[:60]], some[sides[60:]]).interval
        held += low < 0 < high
    assert held >= 33


def test_both_sides_have_as_many_images_in_batches_of_one_size() -> None:
    """Would catch a larger side: the loss grows with the batch, so it would look like a gap."""
    some = images(700)
    found = gap(Pooled(), some, some[:300])
    assert (found.images, found.batch) == (256, 256)
    assert gap(Pooled(), some[:300], some).train == gap(Pooled(), some, some[:300]).held_out
    assert infonce_gap(encoder(Pooled()), some, some[:2], VIEWS, "exact", CPU) is None


def gap_on_rank() -> tuple[float, ...]:
    some = images(1400)
    found = gap(make_encoder().backbone, some[:700], some[700:])
    assert found.images == 512
    return found.train, found.held_out, *found.interval


def test_any_number_of_processes_gives_the_same_bits() -> None:
    """Two batches a side on one process, and on three, of which one has none."""
    assert run_on_ranks(3, gap_on_rank) == 3 * run_on_ranks(1, gap_on_rank)
