"""Training objectives of diffusion models: noise levels, targets and losses of the denoiser (units as in `denoiser`)."""

from __future__ import annotations

import torch
from torch import Tensor

from adainf import recipe
from adainf.generators.noise import RowRandom
from adainf.generators.schedules import ddpm_sigmas


def training_sigmas(config: recipe.Objective, random: RowRandom) -> Tensor:
    """A noise level per image of the step, B: log-normal for EDM, a timestep of the schedule for DDPM."""
    if isinstance(config, recipe.Ddpm):
        steps = random.uniform().double() * config.timesteps
        return ddpm_sigmas(config).float().to(steps.device)[steps.long()]
    return (config.noise_log_mean + config.noise_log_std * random.normal()).exp()


def loss_weight(config: recipe.Objective, sigma_B: Tensor, data: float) -> Tensor:
    """lambda(sigma), B. EDM: (sigma^2 + data^2) / (sigma data)^2 (Karras et al. 2022, table 1). DDPM: 1 / sigma^2, which
    turns the error of the image into that of the noise: the "simple" loss (Ho et al. 2020, equation 14)."""
    if isinstance(config, recipe.Ddpm):
        return sigma_B**-2
    return (sigma_B**2 + data**2) / (sigma_B * data) ** 2


def stable_target(noisy_BCHW: Tensor, sigma_B: Tensor, reference_NCHW: Tensor) -> Tensor:
    """The mean of the reference images, weighted by their posterior probability given the noisy image: B x 3 x H x W.

    softmax_k(-|noisy - x_k|^2 / (2 sigma^2)) x_k (Xu, Tong and Jaakkola 2023, arXiv 2302.00670, equation 6). Bias and
    variance decrease with N. Float32 even within autocast: sigma^2 divides differences of large numbers.
    """
    with torch.autocast(noisy_BCHW.device.type, enabled=False):
        noisy_BD, reference_ND = noisy_BCHW.float().flatten(1), reference_NCHW.float().flatten(1)
        # |noisy|^2 is constant within a row, and softmax is invariant to it.
        distances_BN = reference_ND.square().sum(1) - 2 * noisy_BD @ reference_ND.T
        weights_BN = torch.softmax(-distances_BN / (2 * sigma_B[:, None] ** 2), dim=1)
        return (weights_BN @ reference_ND).view_as(noisy_BCHW)


def denoising_loss(denoised_BCHW: Tensor, target_BCHW: Tensor, weight_B: Tensor) -> Tensor:
    """E[ lambda(sigma) |D(noisy; sigma) - target|^2 ] per value (Karras et al. 2022, equation 2)."""
    return (weight_B * (denoised_BCHW - target_BCHW).square().mean((1, 2, 3))).mean()
