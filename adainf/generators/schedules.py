"""Noise levels: DDPM's schedules, and the levels of a sampler (units as in `denoiser`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adainf import recipe


def alpha_bars(config: recipe.Ddpm) -> Tensor:
    """Fraction of signal power that remains at timesteps 1 … T: float64, descending.

    `linear`: beta from 1e-4 to 0.02 (Ho et al. 2020, section 4), times 1000 / T; `cosine`: Nichol and Dhariwal 2021
    (arXiv 2102.09672), equation 17, with beta at most 0.999.
    """
    count = config.timesteps
    if config.schedule == "linear":
        beta = torch.linspace(0.1 / count, 20 / count, count, dtype=torch.float64)
    else:
        angle = (torch.arange(count + 1, dtype=torch.float64) / count + 0.008) / 1.008 * (math.pi / 2)
        power = angle.cos() ** 2
        beta = 1 - power[1:] / power[:-1]
    return (1 - beta.clamp(max=0.999)).cumprod(0)


def ddpm_sigmas(config: recipe.Ddpm) -> Tensor:
    """Noise levels of timesteps 1 … T, ascending: noise over signal, sqrt((1 - abar) / abar)."""
    kept = alpha_bars(config)
    return ((1 - kept) / kept).sqrt()


def karras_sigmas(count: int, bottom: float, top: float, rho: float) -> Tensor:
    """`count` levels from `top` down to `bottom`, float64 (Karras et al. 2022, equation 5)."""
    step = torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
    return (top ** (1 / rho) + step * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho


def sampling_sigmas(config: recipe.Diffusion) -> Tensor:
    """The levels t_0 > … > t_{N-1} > t_N = 0 of the recipe's sampler, float64.

    Timesteps of a schedule are evenly spaced from the last one down; Karras levels are limited to the range of the schedule.
    """
    sampler, objective = config.sampler, config.objective
    bottom, top = sampler.sigma_min, sampler.sigma_max
    if isinstance(objective, recipe.Ddpm):
        known = ddpm_sigmas(objective)
        if sampler.by_timestep:
            skipped = torch.arange(sampler.steps) * objective.timesteps // sampler.steps
            return torch.cat([known[objective.timesteps - 1 - skipped], torch.zeros(1, dtype=torch.float64)])
        bottom, top = max(bottom, float(known[0])), min(top, float(known[-1]))
    levels = karras_sigmas(sampler.steps, bottom, top, sampler.rho)
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
