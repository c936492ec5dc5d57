"""The denoiser of a diffusion model: wraps a network to predict the expected clean image given a noisy one.

Images are B x 3 x H x W in -1..1; sigma is the standard deviation of the noise in the same unit: noisy = clean + sigma noise
("variance exploding"). Every objective is converted to this form, so that every sampler works with every objective. Networks
are conditioned on ln(sigma) / 4.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

DenoiserFn = Callable[[Tensor, Tensor], Tensor]
"""D(x_BCHW; sigma_B) → B x 3 x H x W."""


class EdmDenoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022, arXiv 2206.00364, equation 7, table 1)."""

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x_BCHW: Tensor, sigma_B: Tensor, mirrored_B: Tensor | None = None) -> Tensor:
        """`mirrored_B` (bool): which images are mirrored, for a network with that condition; None means none."""
        sigma, data = sigma_B[:, None, None, None], self.sigma_data
        total = sigma**2 + data**2
        skip, out, scale = data**2 / total, sigma * data / total.sqrt(), 1 / total.sqrt()
        return skip * x_BCHW + out * self.network(scale * x_BCHW, sigma_B.log() / 4, mirrored_B).float()


class DdpmDenoiser(nn.Module):
    """D(x; sigma) = x - sigma eps(sqrt(abar) x; c_noise), sqrt(abar) = 1 / sqrt(1 + sigma^2).

    Ho et al. 2020 (arXiv 2006.11239), equation 15 solved for the clean image; x here is theirs divided by sqrt(abar).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor, sigma_B: Tensor, mirrored_B: Tensor | None = None) -> Tensor:
        """As `EdmDenoiser.forward`."""
        sigma = sigma_B[:, None, None, None]
        scaled = x_BCHW / (1 + sigma**2).sqrt()
        return x_BCHW - sigma * self.network(scaled, sigma_B.log() / 4, mirrored_B).float()
