"""The GAN: its losses against closed forms and loops, DiffAugment against numpy, and a fit that must learn something."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adainf.generators.batches import Batches
from adainf.generators.diffaugment import diff_augment
from adainf.generators.gan import GanTrainer, discriminator_loss, generator_loss, open_gan, r1_penalty
from adainf.generators.noise import RowRandom
from adainf.generators.sample import sample_images
from adainf.models.gan import Discriminator, fits
from adainf.recipe import Gan, GanSampler
from adainf.recipe.gan import Augment
from tests.processes import run_on_ranks

CPU = torch.device("cpu")
ALL: tuple[Augment, ...] = ("colour", "translation", "cutout")


def small(**settings: object) -> Gan:
    return Gan.model_validate({"kind": "gan", "steps": 10, "batch": 16, "channels": (8, 16), "latent": 8, **settings})


def blobs(count: int) -> np.ndarray:
    """8 x 8 images of two kinds, dark with a bright left or a bright right half, of one brightness each."""
    random = np.random.default_rng(0)
    images = np.full((count, 8, 8, 3), 40.0)
    for image, right in zip(images, random.random(count) < 0.5, strict=True):
        image[:, 4 * right : 4 * right + 4] = random.normal(190, 15)
    return images.clip(0, 255).astype(np.uint8)


def numbers(values: Tensor) -> Callable[[], Tensor]:
    """`uniform` that gives the columns of `values` (B x n) one after the other."""
    columns = itertools.cycle(values.T)
    return lambda: next(columns)


def test_losses_at_known_logits() -> None:
    """By the logistic function s: -log s(0) = log 2; where D is sure, D's loss vanishes and G's grows with the logit."""
    even = torch.zeros(3)
    assert discriminator_loss(even, even).item() == pytest.approx(2 * np.log(2))
    assert generator_loss(even).item() == pytest.approx(np.log(2))
    real, generated = torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 0.5])
    s = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = -np.mean([np.log(s(3)), np.log(s(-1))]) - np.mean([np.log(1 - s(-2)), np.log(1 - s(0.5))])
    assert discriminator_loss(real, generated).item() == pytest.approx(expected)
    assert generator_loss(torch.tensor([-30.0])).item() == pytest.approx(30)  # log(1 - s) would be flat here


def test_r1_is_half_the_mean_square_of_each_images_own_slope() -> None:
    """Against a loop over images with autograd's jacobian; a sum over the batch before the square would pass for one image."""
    torch.manual_seed(0)
    discriminator, real = Discriminator(small(), 8).double(), torch.randn(5, 3, 8, 8, dtype=torch.double)
    slopes = [torch.autograd.functional.jacobian(lambda x: discriminator(x[None])[0], image) for image in real]
    expected = sum(slope.square().sum() for slope in slopes) / 5 / 2
    torch.testing.assert_close(r1_penalty(discriminator, real), expected)


def test_r1_of_a_linear_discriminator_is_its_weight() -> None:
    """And its gradient with respect to the weight w is w: the penalty must be differentiable itself."""
    layer = nn.Linear(12, 1)
    penalty = r1_penalty(nn.Sequential(nn.Flatten(), layer, nn.Flatten(0)), torch.randn(4, 3, 2, 2))
    weight = layer.weight
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)
    (slope,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(slope, weight)


def test_lazy_r1_takes_it_at_every_kth_step_k_times_as_large() -> None:
    """From equal weights: step 0 with interval k is a step with k times the gamma, step 1 one without any."""
    clean = torch.rand(16, 3, 8, 8) * 2 - 1

    def after(step: int, **settings: object) -> Tensor:
        trainer = GanTrainer(small(augment=(), **settings), blobs(16), CPU)
        trainer.step(step, clean, RowRandom(0, 0, range(16), CPU))
        return torch.cat([p.detach().flatten() for p in trainer.discriminator.network.parameters()])

    assert torch.equal(after(0, r1_gamma=0.3, r1_every_steps=4), after(0, r1_gamma=1.2, r1_every_steps=1))
    assert torch.equal(after(1, r1_gamma=0.3, r1_every_steps=4), after(1, r1_gamma=0))
    assert not torch.equal(after(0, r1_gamma=0.3, r1_every_steps=4), after(0, r1_gamma=0))


def test_a_step_of_the_generator_keeps_the_discriminators_gradients() -> None:
    """Both losses run through both networks: each step must move one of them only."""
    trainer = GanTrainer(small(), blobs(16), CPU)
    before = [p.detach().clone() for p in trainer.discriminator.network.parameters()]
    trainer.generator.descend(generator_loss(trainer.discriminator.network(trainer.generator.network(torch.randn(4, 8)))), 0.1)
    assert all(torch.equal(p, old) for p, old in zip(trainer.discriminator.network.parameters(), before, strict=True))
    assert all(p.grad is None for p in trainer.discriminator.network.parameters())


def test_diffaugment_is_that_of_the_paper() -> None:
    """Against plain numpy, image by image."""
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draws = torch.rand(6, 7, generator=torch.Generator().manual_seed(1))
    found = diff_augment(x, ALL, numbers(draws)).numpy()
    for image, u, out in zip(x.numpy().astype(np.float64), draws.numpy(), found, strict=True):
        image = image + (u[0] - 0.5)
        image = image.mean(0) + (image - image.mean(0)) * 2 * u[1]
        image = image.mean() + (image - image.mean()) * (u[2] + 0.5)
        down, left = int(u[3] * 5) - 2, int(u[4] * 5) - 2
        shifted = np.zeros_like(image)
        for row, column in itertools.product(range(16), range(16)):
            if 0 <= row - down < 16 and 0 <= column + left < 16:
                shifted[:, row, column] = image[:, row - down, column + left]
        top, side = int(u[5] * 17) - 4, int(u[6] * 17) - 4
        shifted[:, max(top, 0) : max(top + 8, 0), max(side, 0) : max(side + 8, 0)] = 0
        np.testing.assert_allclose(out, shifted, atol=1e-6)


def test_diffaugment_lets_gradients_through_and_treats_real_and_generated_alike() -> None:
    draws = torch.rand(2, 7, dtype=torch.double)
    x = torch.rand(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, ("colour", "cutout"), numbers(draws)), x)
    shifted = diff_augment(x.float(), ("translation",), numbers(torch.zeros(2, 2)))
    (slope,) = torch.autograd.grad(shifted.sum(), x)
    assert slope.sum() == shifted.count_nonzero()  # a pixel that stayed has slope 1, one that left has 0
    once = diff_augment(x.float(), ALL, numbers(draws.float()))
    assert torch.equal(once, diff_augment(x.float().detach(), ALL, numbers(draws.float())))


def test_translation_reaches_every_shift_and_cutout_every_place() -> None:
    uniform = torch.linspace(0, 1 - 2**-24, 2000)
    lone = torch.zeros(2000, 1, 16, 16)
    lone[:, :, 8, 8] = 1
    moved = diff_augment(lone, ("translation",), numbers(torch.stack([uniform, uniform.flip(0)], 1)))
    assert sorted(set(moved.sum((1, 3)).argmax(1).tolist())) == [6, 7, 8, 9, 10]
    assert sorted(set(moved.sum((1, 2)).argmax(1).tolist())) == [6, 7, 8, 9, 10]
    draws = torch.stack([uniform, torch.full_like(uniform, 0.5)], 1)
    cut = diff_augment(torch.ones(2000, 1, 16, 16), ("cutout",), numbers(draws))
    assert (cut.mean((0, 1)).amin(1) < 1).all()


@pytest.mark.heavy
def test_two_modes_are_learned_with_their_shares_and_brightness() -> None:
    """A generator that collapses, averages the modes, or misses the scale fails one of the bars."""
    config = small(steps=400, batch=32, learning_rate=2e-3, augment=(), sampler=GanSampler(batch=100))
    images = blobs(600)
    trainer, batches = GanTrainer(config, images, CPU), Batches(config, images, CPU)
    for step in range(config.steps):
        trainer.step(step, *batches.at(step))
    drawn = sample_images(open_gan(config, trainer.fitted(), 8, 0, CPU), 100, range(400)).astype(float)
    left, right = drawn[:, :, :4].mean((1, 2, 3)), drawn[:, :, 4:].mean((1, 2, 3))
    assert (np.abs(left - right) > 90).mean() > 0.9  # one half is bright, the other dark; a few lie between the modes
    assert 0.3 < (left > right).mean() < 0.7
    assert np.maximum(left, right).mean() == pytest.approx(190, abs=12)
    assert np.minimum(left, right).mean() == pytest.approx(40, abs=12)


def test_stopped_and_gone_on_is_bit_for_bit_the_fit_that_was_not() -> None:
    config, images = small(augment=ALL, r1_every_steps=4, horizontal_flip=True), blobs(64)
    batches = Batches(config, images, CPU)

    def fit(trainer: GanTrainer, steps: range) -> GanTrainer:
        for step in steps:
            trainer.step(step, *batches.at(step))
        return trainer

    expected = fit(GanTrainer(config, images, CPU), range(9)).state()
    saved = {name: tensor.clone() for name, tensor in fit(GanTrainer(config, images, CPU), range(5)).state().items()}
    again = GanTrainer(config, images, CPU)
    again.load(saved)
    resumed = fit(again, range(5, 9)).state()
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert any(name.startswith("discriminator.optimizer.") for name in expected)


def gradients() -> list[Tensor | None]:
    """Those of both networks after one step on this process's rows, with R1, DiffAugment and mirroring."""
    config, images = small(r1_every_steps=1, horizontal_flip=True), blobs(64)
    trainer = GanTrainer(config, images, CPU)
    trainer.step(5, *Batches(config, images, CPU).at(5))
    players = (trainer.discriminator, trainer.generator)
    return [parameter.grad for player in players for parameter in player.network.parameters()]


def test_two_processes_on_different_images_have_the_gradients_of_one() -> None:
    one = gradients()
    scale = max(gradient.abs().max().item() for gradient in one)
    for rank in run_on_ranks(2, gradients):
        for mine, theirs in zip(rank, one, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * scale)


def test_an_image_does_not_depend_on_its_companions() -> None:
    config = small()
    trainer = GanTrainer(config, blobs(16), CPU)
    for step in range(3):
        trainer.step(step, *Batches(config, blobs(16), CPU).at(step))
    draw = open_gan(config, trainer.fitted(), 8, 7, CPU)
    expected = draw(range(16))
    np.testing.assert_array_equal(draw(range(8, 24))[:8], expected[8:])
    assert not (expected[0] == expected[1]).all()
    assert not (open_gan(config, trainer.fitted(), 8, 8, CPU)(range(16))[0] == expected[0]).all()


@pytest.mark.parametrize(("channels", "size", "wanted"), [((8, 16), 8, True), ((8, 16, 32), 10, False), ((12,), 8, False)])
def test_sizes_and_widths_that_do_not_fit_are_detected(channels: tuple[int, ...], size: int, wanted: bool) -> None:
    assert fits(small(channels=channels), size, size) is wanted
    assert not fits(small(), 8, 16)
