"""Every sampler with exact denoisers, for which the end is known."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from adainf.generators.diffusion import clip_pixels
from adainf.generators.noise import initial_noise
from adainf.generators.samplers import SAMPLERS, Project, SamplerFn, ancestral, ddim, dpmpp2m, heun, identity, sample
from adainf.generators.schedules import alpha_bars, ddpm_sigmas, karras_sigmas
from adainf.recipe import Ddpm
from tests.generators.exact import HIGH, HIGH_SHARE, LOW, MEAN, SHAPE, STD, Correlated, gaussian, two_points

STEPS = {"heun": 40, "dpmpp2m": 60, "ddim": 300, "ancestral": 300}
IMAGES = 10_000


def levels(steps: int, bottom: float = 0.002) -> Tensor:
    return torch.cat([karras_sigmas(steps, bottom, 80.0, 7.0), torch.zeros(1, dtype=torch.float64)])


def renew(seed: int, images: int, step: int) -> Tensor:
    return torch.randn(images, *SHAPE, generator=torch.Generator().manual_seed(1000 * seed + step))


def noise(seed: int, images: int) -> Tensor:
    return torch.randn(images, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_end_has_the_mean_and_covariance_of_correlated_data(kind: str) -> None:
    data = Correlated()
    x = sample(SAMPLERS[kind], data, noise(0, IMAGES), levels(STEPS[kind]), partial(renew, 1, IMAGES)).flatten(1)
    deviations = data.covariance.diagonal().sqrt()
    assert ((x.mean(0) - data.mean).abs() < 5 * deviations / IMAGES**0.5 + 0.01 * deviations).all()
    scale = torch.outer(deviations, deviations)
    assert ((x.T.cov() - data.covariance).abs() / scale).max() < 5 * (2 / IMAGES) ** 0.5 + 0.015


@pytest.mark.parametrize("kind", SAMPLERS)
def test_two_points_are_reached_in_their_shares(kind: str) -> None:
    images = 4000
    x = sample(SAMPLERS[kind], two_points, noise(2, images), levels(STEPS[kind]), partial(renew, 3, images)).flatten(1)
    high = (x > (LOW + HIGH) / 2).all(1)
    expected = torch.where(high[:, None], HIGH, LOW).double().expand_as(x)
    assert (x - expected).abs().max() < 0.01
    assert high.double().mean().item() == pytest.approx(HIGH_SHARE, abs=5 * (HIGH_SHARE * (1 - HIGH_SHARE) / images) ** 0.5)


@pytest.mark.parametrize(("walk", "least_ratio", "most_ratio"), [(heun, 3.5, 5), (dpmpp2m, 3.5, 5), (ddim, 1.8, 2.3)])
def test_deterministic_samplers_converge_with_their_order(walk: SamplerFn, least_ratio: float, most_ratio: float) -> None:
    """For Gaussian data the flow has a closed form: x(s) = mean + (x(T) - mean) sqrt(std^2 + s^2) / sqrt(std^2 + T^2)."""
    bottom = 0.05  # each ends there; the last step, to 0, is of first order in it and the same for all
    start = noise(4, 50)
    truth = MEAN + (start.double() * 80 - MEAN) * ((STD**2 + bottom**2) / (STD**2 + 80**2)) ** 0.5

    def error(steps: int) -> float:
        found = sample(walk, gaussian, start, levels(steps, bottom)[:-1], partial(renew, 5, 50))
        return (found - truth).abs().max().item()

    errors = [error(steps) for steps in (48, 96, 192)]
    for coarse, fine in itertools.pairwise(errors):
        assert least_ratio < coarse / fine < most_ratio, errors


def test_ddim_and_ancestral_have_the_marginals_of_the_noised_data() -> None:
    """Not only at the end: at each level both have variance std^2 + sigma^2."""
    schedule = ddpm_sigmas(Ddpm(kind="ddpm")).flip(0)
    for until in (400, 900):
        for walk in (ddim, ancestral):
            x = sample(walk, gaussian, noise(6, 4000), schedule[:until], partial(renew, 7, 4000))
            expected = STD**2 + schedule[until - 1].item() ** 2
            assert x.mean().item() == pytest.approx(MEAN, abs=5 * (expected / x.numel()) ** 0.5 + 0.005)
            assert x.var().item() == pytest.approx(expected, rel=5 * (2 / x.numel()) ** 0.5 + 0.01)


@pytest.mark.parametrize(("now", "after"), [(999, 979), (500, 499), (20, 0)])
def test_one_step_is_the_papers_in_its_own_coordinates(now: int, after: int) -> None:
    """Ho et al.'s equation 7 and Song et al.'s 12, with x_t = sqrt(abar) x, for any predicted clean image."""
    kept = alpha_bars(Ddpm(kind="ddpm"))
    levels_ = ddpm_sigmas(Ddpm(kind="ddpm"))[[now, after]]
    clean, x, fresh = (torch.randn(2, *SHAPE, dtype=torch.float64) for _ in range(3))
    x_t = kept[now].sqrt() * x

    def ours(walk: SamplerFn) -> Tensor:
        return walk(lambda x, sigma: clean, x, levels_, lambda step: fresh, identity) * kept[after].sqrt()

    epsilon = (x_t - kept[now].sqrt() * clean) / (1 - kept[now]).sqrt()
    torch.testing.assert_close(ours(ddim), kept[after].sqrt() * clean + (1 - kept[after]).sqrt() * epsilon)

    alpha = kept[now] / kept[after]
    mean = kept[after].sqrt() * (1 - alpha) / (1 - kept[now]) * clean
    mean = mean + alpha.sqrt() * (1 - kept[after]) / (1 - kept[now]) * x_t
    deviation = ((1 - kept[after]) / (1 - kept[now]) * (1 - alpha)).sqrt()
    torch.testing.assert_close(ours(ancestral), mean + deviation * fresh)


def test_a_projected_step_is_that_of_diffusers() -> None:
    """Its DDIM clips the clean image and keeps the predicted noise; would catch noise that is recomputed."""
    scheduler = DDIMScheduler(1000, beta_schedule="linear", clip_sample=True)
    scheduler.set_timesteps(50)
    kept = alpha_bars(Ddpm(kind="ddpm"))
    now, after = 500, 480
    clean, x = (3 * torch.randn(2, *SHAPE, dtype=torch.float64) for _ in range(2))
    x_t = kept[now].sqrt() * x
    epsilon = (x_t - kept[now].sqrt() * clean) / (1 - kept[now]).sqrt()
    theirs = scheduler.step(epsilon, now, x_t).prev_sample
    levels_ = ddpm_sigmas(Ddpm(kind="ddpm"))[[now, after]]
    found = ddim(lambda x, sigma: clean, x, levels_, lambda step: x, clip_pixels) * kept[after].sqrt()
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=1e-5)  # its schedule is float32


@pytest.mark.parametrize("kind", SAMPLERS)
def test_projection_clips_only_what_exceeds_the_range(kind: str) -> None:
    """Predictions that are 1.5 times too large end in the range of pixels; predictions within it give the same bits."""

    def drawn(factor: float, project: Project) -> Tensor:
        def denoiser(x: Tensor, sigma_B: Tensor) -> Tensor:
            return factor * two_points(x, sigma_B)

        return sample(SAMPLERS[kind], denoiser, noise(8, 50), levels(20), partial(renew, 9, 50), project)

    beyond = max(abs(LOW), abs(HIGH)) * 1.5
    assert beyond > 1
    assert drawn(1.5, identity).abs().max() > 1.01
    assert drawn(1.5, clip_pixels).abs().max() <= 1
    assert torch.equal(drawn(1, clip_pixels), drawn(1, identity))


@pytest.mark.parametrize(("kind", "evaluations"), [("heun", 13), ("dpmpp2m", 7), ("ddim", 7), ("ancestral", 7)])
def test_the_number_of_network_evaluations(kind: str, evaluations: int) -> None:
    asked = []

    def counting(x: Tensor, sigma_B: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        asked.append(sigma_B)
        return gaussian(x, sigma_B)

    sample(SAMPLERS[kind], counting, noise(0, 2), levels(7), partial(renew, 0, 2))
    assert len(asked) == evaluations


def test_noise_of_an_index_is_the_same_in_any_range_and_differs_between_indices_and_steps() -> None:
    expected = initial_noise(3, range(10), (3, 4, 4))
    torch.testing.assert_close(initial_noise(3, range(4, 7), (3, 4, 4)), expected[4:7], atol=0, rtol=0)
    others = [
        initial_noise(3, range(1, 2), (3, 4, 4)),
        initial_noise(4, range(1), (3, 4, 4)),
        initial_noise(3, range(1), (3, 4, 4), 1),
    ]
    for other in others:
        assert not torch.isclose(other[0], expected[0]).any()
    assert abs(expected.mean().item()) < 0.2
