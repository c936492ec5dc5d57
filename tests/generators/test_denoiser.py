"""The two denoisers against their papers' tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from adainf.generators.denoiser import DdpmDenoiser, EdmDenoiser
from tests.generators.exact import STD


class Spy(nn.Module):
    """A network that returns 1 everywhere and records its inputs."""

    def forward(self, x: Tensor, c_noise: Tensor, mirrored: Tensor | None) -> Tensor:
        self.seen = x, c_noise, mirrored
        return torch.ones_like(x)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_edm_preconditioning_is_table_one(sigma: float) -> None:
    network, x, mirrored = Spy(), torch.full((1, 3, 2, 2), 0.7), torch.tensor([True])
    out = EdmDenoiser(network, STD)(x, torch.tensor([sigma]), mirrored)
    total = sigma**2 + STD**2
    scaled, c_noise, condition = network.seen
    torch.testing.assert_close(scaled, x / total**0.5)
    torch.testing.assert_close(c_noise, torch.tensor([math.log(sigma) / 4]))
    assert condition is mirrored
    torch.testing.assert_close(out, STD**2 / total * x + sigma * STD / total**0.5)


@pytest.mark.parametrize("kept", [0.9999, 0.5, 1e-4])
def test_ddpm_sees_the_variance_preserving_image_and_undoes_its_noise(kept: float) -> None:
    """x_t = sqrt(abar) clean + sqrt(1 - abar) eps, so clean = (x_t - sqrt(1 - abar) eps) / sqrt(abar)."""
    network, clean = Spy(), torch.full((1, 3, 2, 2), 0.7)
    x_t = kept**0.5 * clean + (1 - kept) ** 0.5 * torch.ones_like(clean)
    sigma = ((1 - kept) / kept) ** 0.5
    out = DdpmDenoiser(network)(x_t / kept**0.5, torch.tensor([sigma]))
    torch.testing.assert_close(network.seen[0], x_t)
    torch.testing.assert_close(out, clean, atol=2e-5, rtol=0)
