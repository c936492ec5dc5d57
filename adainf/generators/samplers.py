"""Samplers: from standard normal noise to images, through falling noise levels (units as in `denoiser`)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from adainf import recipe
from adainf.generators.denoiser import DenoiserFn


def sigmas(config: recipe.Sampler) -> Tensor:
    """The noise levels t_0 = sigma_max > … > t_{N-1} = sigma_min and t_N = 0, float64 (Karras et al. 2022, equation 5)."""
    step = torch.arange(config.steps, dtype=torch.float64) / max(config.steps - 1, 1)
    top, bottom = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    levels = (top + step * (bottom - top)) ** config.rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample_heun(denoiser: DenoiserFn, noise_BCHW: Tensor, config: recipe.Sampler) -> Tensor:
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
