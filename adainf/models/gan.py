"""Residual generator and discriminator of a GAN, for images of a few dozen pixels.

Neither has batch statistics: an image depends only on its latent, a logit only on its image.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe

_HALF = 0.5**0.5
"""Preserves the variance of a sum of two terms."""


class ModulatedNorm(nn.Module):
    """Group normalisation with scale and shift from the latent (self-modulation: Chen et al. 2019, arXiv 1810.01365)."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels, affine=False)
        self.modulate = nn.Linear(latent, 2 * channels)

    def forward(self, x_BCHW: Tensor, latent_BL: Tensor) -> Tensor:
        scale, shift = self.modulate(latent_BL)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x_BCHW) * (1 + scale) + shift
        return out


class UpBlock(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, inputs: int, outputs: int, latent: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ModulatedNorm(inputs, latent), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = ModulatedNorm(outputs, latent), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor, latent_BL: Tensor) -> Tensor:
        hidden = self.conv1(F.interpolate(F.relu(self.norm1(x_BCHW, latent_BL)), scale_factor=2))
        hidden = self.conv2(F.relu(self.norm2(hidden, latent_BL)))
        out: Tensor = F.interpolate(self.skip(x_BCHW), scale_factor=2) + hidden
        return out


class DownBlock(nn.Module):
    """Residual block that halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = F.avg_pool2d(self.conv1(F.leaky_relu(x_BCHW, 0.2)), 2)
        hidden = self.conv2(F.leaky_relu(hidden, 0.2))
        out: Tensor = (self.skip(F.avg_pool2d(x_BCHW, 2)) + hidden) * _HALF
        return out


def fits(config: recipe.Gan, height_px: int, width_px: int) -> bool:
    """Whether the networks can halve images of this size often enough, and group normalisation fits the channels."""
    halves = height_px == width_px and height_px % 2 ** (len(config.channels) - 1) == 0
    return halves and all(channels % 8 == 0 for channels in config.channels)


class Generator(nn.Module):
    """Latents B x L → images B x 3 x H x W in -1..1. The caller checks the size (`fits`)."""

    def __init__(self, config: recipe.Gan, size_px: int) -> None:
        super().__init__()
        widths = config.channels[::-1]
        base_px = size_px >> (len(widths) - 1)
        self.map = nn.Sequential(nn.Linear(config.latent, config.latent), nn.LeakyReLU(0.2))
        self.first = nn.Sequential(
            nn.Linear(config.latent, widths[0] * base_px**2), nn.Unflatten(1, (widths[0], base_px, base_px))
        )
        self.blocks = nn.ModuleList(UpBlock(before, after, config.latent) for before, after in pairwise(widths))
        self.last_norm = ModulatedNorm(widths[-1], config.latent)
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z_BL: Tensor) -> Tensor:
        x, latent_BL = self.first(z_BL), self.map(z_BL)
        for block in self.blocks:
            x = block(x, latent_BL)
        out: Tensor = self.last(F.relu(self.last_norm(x, latent_BL))).tanh()
        return out


class Discriminator(nn.Module):
    """Images B x 3 x H x W → logits B; positive means real."""

    def __init__(self, config: recipe.Gan, size_px: int) -> None:
        super().__init__()
        widths = config.channels
        base_px = size_px >> (len(widths) - 1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1),
            *(DownBlock(before, after) for before, after in pairwise(widths)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(widths[-1], widths[-1], 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(widths[-1] * base_px**2, 1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.layers(x_BCHW).squeeze(1)
        return out
