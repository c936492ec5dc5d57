"""EDM against closed forms: for Gaussian data the exact denoiser, and so the end of every sampler, is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adainf.exitcodes import StageFailed
from adainf.generators.average import update_average
from adainf.generators.denoiser import EdmDenoiser
from adainf.generators.diffusion import build_denoiser, open_diffusion
from adainf.generators.kind import Fitted
from adainf.generators.noise import initial_noise
from adainf.generators.objectives import denoising_loss
from adainf.generators.pixels import deviation, to_pixels, to_unit
from adainf.generators.sample import sample_images
from adainf.generators.samplers import sample_heun, sigmas
from adainf.models.unet import UNet
from adainf.recipe import Diffusion, Sampler, Unet

MEAN, STD = 0.2, 0.5


def exact(x: Tensor, sigma_B: Tensor) -> Tensor:
    """E[clean | noisy] for values that are independent normal with `MEAN` and `STD`."""
    variance = sigma_B[:, None, None, None] ** 2
    return (STD**2 * x + variance * MEAN) / (STD**2 + variance)


def test_noise_levels_are_the_papers() -> None:
    levels = sigmas(Sampler(steps=18))
    assert len(levels) == 19
    assert levels[0].item() == pytest.approx(80)
    assert levels[17].item() == pytest.approx(0.002)
    assert levels[18] == 0
    assert (levels.diff() < 0).all()
    middle = (80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[9].item() == pytest.approx(middle)


def test_heun_reaches_the_datas_mean_and_deviation() -> None:
    noise = initial_noise(0, range(2000), (3, 4, 4))
    x = sample_heun(exact, noise, Sampler(steps=64))
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(STD, rel=0.01)


def test_heun_converges_with_order_two() -> None:
    """For Gaussian data the flow has a closed form: x(0) = mean + (x(T) - mean) std / sqrt(std^2 + T^2)."""
    noise = initial_noise(1, range(50), (3, 2, 2)).double()
    start = noise * 80
    truth = MEAN + (start - MEAN) * STD / (STD**2 + 80**2) ** 0.5

    def double(x: Tensor, sigma_B: Tensor) -> Tensor:
        return exact(x.double(), sigma_B.double())

    errors = [(sample_heun(double, noise, Sampler(steps=n)) - truth).abs().max().item() for n in (16, 32, 64)]
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


class _Zero(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_preconditioning_at_both_ends_of_the_noise() -> None:
    denoiser = EdmDenoiser(_Zero(), STD)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(denoiser(x, torch.tensor([1e-6, 1e-6])), x)  # no noise: the image itself
    assert denoiser(x, torch.tensor([1e6, 1e6])).abs().max() < 1e-6  # all noise: nothing of it


class _Spy(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.seen = x, c_noise
        return torch.ones_like(x)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_preconditioning_is_the_papers_table_one(sigma: float) -> None:
    network, x = _Spy(), torch.full((1, 3, 2, 2), 0.7)
    out = EdmDenoiser(network, STD)(x, torch.tensor([sigma]))
    total = sigma**2 + STD**2
    seen, c_noise = network.seen
    torch.testing.assert_close(seen, x / total**0.5)
    torch.testing.assert_close(c_noise, torch.tensor([np.log(sigma) / 4], dtype=torch.float32))
    torch.testing.assert_close(out, STD**2 / total * x + sigma * STD / total**0.5)


def test_the_average_is_exponential_by_images_seen() -> None:
    """Against its closed form: half-life h images, at most 5 % of those seen, so one step keeps 0.5 ** (batch / h)."""
    config = Diffusion(kind="diffusion", steps=1, batch=100, ema_half_life_images=300, unet=Unet(channels=8, multipliers=(1,)))
    model, average = build_denoiser(config, 8, STD), build_denoiser(config, 8, STD)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    for parameter in average.parameters():
        nn.init.zeros_(parameter)
    update_average(average, model, config, step=999)  # 100,000 images seen: 5 % is more than the half-life
    torch.testing.assert_close(next(average.parameters()), torch.full_like(next(average.parameters()), 1 - 0.5 ** (1 / 3)))
    update_average(average, model, config, step=9)  # 1,000 seen: half-life 50
    expected = 1 - 0.5 ** (1 / 3) * 0.5**2
    torch.testing.assert_close(next(average.parameters()), torch.full_like(next(average.parameters()), expected))


def test_the_loss_weight_makes_every_noise_level_count_alike() -> None:
    """With F = 0 on data of deviation sigma_data the weighted loss is 1 at every sigma (Karras et al., appendix B.6)."""
    generator = torch.Generator().manual_seed(0)
    clean = STD * torch.randn(4000, 3, 4, 4, generator=generator)
    noise = torch.randn(4000, 3, 4, 4, generator=generator)
    for level in (-3.0, 0.0, 2.0):
        loss = denoising_loss(EdmDenoiser(_Zero(), STD), clean, torch.zeros(4000), noise, STD, level, 1.0)
        assert loss.item() == pytest.approx(1.0, rel=0.02)


def test_noise_of_an_index_is_the_same_in_any_range_and_differs_between_indices() -> None:
    whole = initial_noise(3, range(10), (3, 4, 4))
    torch.testing.assert_close(initial_noise(3, range(4, 7), (3, 4, 4)), whole[4:7], atol=0, rtol=0)
    assert not torch.isclose(whole[0], whole[1]).any()
    assert not torch.isclose(initial_noise(4, range(1), (3, 4, 4))[0], whole[0]).any()
    assert abs(whole.mean().item()) < 0.2


def test_images_of_a_shard_do_not_depend_on_the_other_shards() -> None:
    config = Diffusion(kind="diffusion", steps=1, unet=Unet(channels=8, multipliers=(1, 2)), sampler=Sampler(steps=3, batch=8))
    network = build_denoiser(config, 8, STD).network
    nn.init.normal_(network.last.weight, std=0.1)
    fitted = Fitted(dict(network.state_dict()), {"sigma_data": STD})
    draw = open_diffusion(config, fitted, 8, 0, torch.device("cpu"))
    whole = sample_images(draw, 8, range(20))
    assert whole.shape == (20, 8, 8, 3)
    alone = sample_images(draw, 8, range(8, 16))
    np.testing.assert_array_equal(alone, whole[8:16])


def test_a_sample_that_is_not_finite_is_no_image() -> None:
    """uint8 has no NaN: it would be written as black."""
    x_BCHW = torch.zeros(2, 3, 4, 4)
    x_BCHW[1, 1, 2, 2] = torch.nan
    with pytest.raises(StageFailed, match="no numbers"):
        to_pixels(x_BCHW)


def test_pixels_survive_the_way_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 48, 1)[:, :, :, :].expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(to_pixels(to_unit(pixels)), pixels)


def test_measured_deviation_is_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    assert deviation(images) == pytest.approx((images / 127.5 - 1).std(), rel=1e-9)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_the_unet_keeps_the_shape_and_starts_at_zero(size: int) -> None:
    network = UNet(Unet(channels=8, multipliers=(1, 2, 2), attention_below_px=8), size)
    x = torch.randn(2, 3, size, size)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros_like(x))


def test_the_unet_tells_noise_levels_apart() -> None:
    network = UNet(Unet(channels=16, multipliers=(1,)), 8)
    nn.init.normal_(network.last.weight, std=0.1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    x = torch.randn(1, 3, 8, 8)
    assert not torch.allclose(network(x, torch.tensor([-1.0])), network(x, torch.tensor([1.0])), atol=1e-3)


@pytest.mark.parametrize(("size", "unet"), [(10, Unet(multipliers=(1, 2, 2))), (8, Unet(channels=12))])
def test_sizes_that_do_not_fit_are_refused(size: int, unet: Unet) -> None:
    with pytest.raises(ValueError, match="multiple"):
        UNet(unet, size)
