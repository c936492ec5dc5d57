"""What diffusion models learn: losses of the denoiser (units as in `denoiser`)."""

from __future__ import annotations

from torch import Tensor

from adainf.generators.denoiser import DenoiserFn


def denoising_loss(
    denoiser: DenoiserFn,
    clean_BCHW: Tensor,
    normal_B: Tensor,
    noise_BCHW: Tensor,
    data: float,
    log_mean: float,
    log_std: float,
) -> Tensor:
    """E[ lambda(sigma) |D(y + n; sigma) - y|^2 ] per value, lambda = (sigma^2 + data^2) / (sigma data)^2.

    Karras et al. 2022, equation 8.

    `normal_B` and `noise_BCHW` are standard normal: ln sigma = log_mean + log_std normal, n = sigma noise.
    """
    sigma_B = (log_mean + log_std * normal_B).exp()
    denoised = denoiser(clean_BCHW + sigma_B[:, None, None, None] * noise_BCHW, sigma_B)
    weight_B = (sigma_B**2 + data**2) / (sigma_B * data) ** 2
    return (weight_B * (denoised - clean_BCHW).square().mean((1, 2, 3))).mean()
