"""EDM: preconditioning, loss and Heun's sampler of Karras et al. 2022 (arXiv 2206.00364, table 1, algorithm 1).

Images are B x 3 x H x W in -1..1 here; sigma is the deviation of the noise in the same unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adainf import recipe
from adainf.exitcodes import StageFailed

DenoiserFn = Callable[[Tensor, Tensor], Tensor]


class Denoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise): the expected clean image behind a noisy one (equation 7)."""

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
        sigma, data = sigma_B[:, None, None, None], self.sigma_data
        total = sigma**2 + data**2
        skip, out, scale = data**2 / total, sigma * data / total.sqrt(), 1 / total.sqrt()
        return skip * x_BCHW + out * self.network(scale * x_BCHW, sigma_B.log() / 4).float()


def denoising_loss(
    denoiser: DenoiserFn,
    clean_BCHW: Tensor,
    normal_B: Tensor,
    noise_BCHW: Tensor,
    data: float,
    log_mean: float,
    log_std: float,
) -> Tensor:
    """E[ lambda(sigma) |D(y + n; sigma) - y|^2 ] per value, lambda = (sigma^2 + data^2) / (sigma data)^2 (equation 8).

    `normal_B` and `noise_BCHW` are standard normal: ln sigma = log_mean + log_std normal, n = sigma noise.
    """
    sigma_B = (log_mean + log_std * normal_B).exp()
    denoised = denoiser(clean_BCHW + sigma_B[:, None, None, None] * noise_BCHW, sigma_B)
    weight_B = (sigma_B**2 + data**2) / (sigma_B * data) ** 2
    return (weight_B * (denoised - clean_BCHW).square().mean((1, 2, 3))).mean()


def sigmas(config: recipe.HeunSampler) -> Tensor:
    """The noise levels t_0 = sigma_max > … > t_{N-1} = sigma_min and t_N = 0, N + 1 values in float64 (equation 5)."""
    step = torch.arange(config.steps, dtype=torch.float64) / max(config.steps - 1, 1)
    top, bottom = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    levels = (top + step * (bottom - top)) ** config.rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample_heun(denoiser: DenoiserFn, noise_BCHW: Tensor, config: recipe.HeunSampler) -> Tensor:
    """Images from standard normal noise by the deterministic sampler (algorithm 1): 2 N - 1 evaluations.

    The state is float64, as sums of small steps are; the network sees float32.
    """

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        levels = torch.full((len(x),), float(sigma), device=x.device)
        return (x - denoiser(x.float(), levels).double()) / sigma

    levels = sigmas(config)
    x = noise_BCHW.double() * levels[0]
    for now, after in itertools.pairwise(levels):
        d = slope(x, now)
        predicted = x + (after - now) * d
        if after > 0:
            predicted = x + (after - now) * (d + slope(predicted, after)) / 2
        x = predicted
    return x


def to_unit(images_BHWC: Tensor) -> Tensor:
    """uint8 B x H x W x 3 → float32 B x 3 x H x W in -1..1."""
    return images_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def check_finite(x_BCHW: Tensor, indices: range) -> None:
    """Raise `StageFailed` where the samples of `indices` hold a NaN or an infinity, which as pixels would look like images."""
    if not x_BCHW.isfinite().all():
        raise StageFailed(
            f"the generator gave NaN or infinity among samples {indices.start} to {indices.stop - 1}, and their shard was not "
            "written; fit it again with a lower generator.learning_rate, or with generator.precision: 'no' where it is bf16"
        )


def to_pixels(x_BCHW: Tensor) -> Tensor:
    """-1..1 B x 3 x H x W → uint8 B x H x W x 3, rounded and clipped."""
    return ((x_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
