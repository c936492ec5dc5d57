"""What is learned: weights, the stable target field against a loop and against the exact posterior."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from adainf.generators.denoiser import DdpmDenoiser, EdmDenoiser
from adainf.generators.noise import RowRandom
from adainf.generators.objectives import denoising_loss, loss_weight, stable_target, training_sigmas
from adainf.generators.schedules import ddpm_sigmas
from adainf.recipe import Ddpm, Edm
from tests.generators.exact import MEAN, STD

EDM = Edm(kind="edm")


def rows(count: int) -> RowRandom:
    return RowRandom(0, 0, range(count), torch.device("cpu"))


def test_edms_weight_makes_every_noise_level_count_alike() -> None:
    """With F = 0 on data of deviation sigma_data the weighted loss is 1 at every sigma (Karras et al., appendix B.6)."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4000, 3, 4, 4, generator=generator) for _ in range(2))
    for level in (0.05, 1.0, 7.0):
        sigma_B = torch.full((4000,), level)
        denoiser = EdmDenoiser(lambda x, c_noise, mirrored: torch.zeros_like(x), STD)  # type: ignore[arg-type]
        loss = denoising_loss(denoiser(STD * clean + level * noise, sigma_B), STD * clean, loss_weight(EDM, sigma_B, STD))
        assert loss.item() == pytest.approx(1.0, rel=0.02)


def test_ddpms_weight_makes_the_loss_that_of_the_noise() -> None:
    """Ho et al.'s simple loss |eps - eps_theta(x_t)|^2, whatever the level."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, predicted = (torch.randn(3, 3, 4, 4, generator=generator) for _ in range(3))
    sigma_B = torch.tensor([0.011, 1.0, 150.0])
    denoiser = DdpmDenoiser(lambda x, c_noise, mirrored: predicted)  # type: ignore[arg-type]
    noisy = clean + sigma_B[:, None, None, None] * noise
    loss = denoising_loss(denoiser(noisy, sigma_B), clean, loss_weight(Ddpm(kind="ddpm"), sigma_B, STD))
    assert loss.item() == pytest.approx((predicted - noise).square().mean().item(), rel=1e-4)


def test_noise_levels_of_the_fit_are_the_papers() -> None:
    logs = training_sigmas(EDM, rows(4000)).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=5 * 1.2 / 4000**0.5)
    assert logs.std().item() == pytest.approx(1.2, rel=0.06)
    ddpm = Ddpm(kind="ddpm", timesteps=20)
    found, counts = training_sigmas(ddpm, rows(4000)).unique(return_counts=True)
    torch.testing.assert_close(found, ddpm_sigmas(ddpm).float())
    assert (counts - 200).abs().max() < 5 * 200**0.5


def naive_stable_target(noisy: Tensor, sigma_B: Tensor, reference: Tensor) -> Tensor:
    """Row by row, difference by difference, in float64."""
    out = []
    for image, sigma in zip(noisy.double(), sigma_B.double(), strict=True):
        logits = torch.stack([-(image - other).square().sum() / (2 * sigma**2) for other in reference.double()])
        weights = (logits - logits.logsumexp(0)).exp()
        out.append(sum(weight * other for weight, other in zip(weights, reference.double(), strict=True)))
    return torch.stack(out)


@pytest.mark.parametrize("sigma", [0.01, 0.7, 3.0, 50.0])
def test_the_stable_target_is_the_loops(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(40, 3, 8, 8, generator=generator) * 2 - 1
    sigma_B = torch.full((6,), sigma)
    noisy = reference[:6] + sigma * torch.randn(6, 3, 8, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):  # which must not reach it
        found = stable_target(noisy, sigma_B, reference)
    torch.testing.assert_close(found.double(), naive_stable_target(noisy, sigma_B, reference), atol=1e-4, rtol=0)


def test_a_reference_batch_of_one_is_denoising_score_matching() -> None:
    clean = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(stable_target(clean + 5 * torch.randn_like(clean), torch.tensor([5.0]), clean), clean)


def test_bias_vanishes_and_variance_falls_as_the_reference_batch_grows() -> None:
    """Of the target at one noisy image of Gaussian data: the first reference is a draw from the posterior, which is known, the
    others from the data (Xu et al., theorem 2)."""
    sigma, noisy, repeats = 1.0, torch.full((1, 3, 1, 1), 0.9), 600
    shrink = STD**2 / (STD**2 + sigma**2)
    posterior_mean, posterior_variance = MEAN + shrink * (0.9 - MEAN), shrink * sigma**2
    generator = torch.Generator().manual_seed(0)

    def moments(references: int) -> tuple[float, float]:
        targets = []
        for _ in range(repeats):
            normal = torch.randn(references, 3, 1, 1, generator=generator)
            normal[0] = (posterior_mean + posterior_variance**0.5 * normal[0] - MEAN) / STD
            targets.append(stable_target(noisy, torch.tensor([sigma]), MEAN + STD * normal))
        found = torch.stack(targets)
        return abs(found.mean().item() - posterior_mean), found.var().item()

    found = {references: moments(references) for references in (1, 8, 64, 1024)}
    variances = [variance for _, variance in found.values()]
    assert variances[0] == pytest.approx(posterior_variance, rel=5 * (2 / (3 * repeats)) ** 0.5)
    for before, after in itertools.pairwise(variances):
        assert after < before / 4
    assert found[1024][0] < 5 * (found[1024][1] / (3 * repeats)) ** 0.5 + 2e-3
    assert found[1024][0] < found[8][0] / 3
