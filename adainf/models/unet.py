"""A small UNet as the network F of a diffusion model, for images of a few dozen pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe


class Block(nn.Module):
    """Residual block; scale and shift of its second normalisation depend on the noise level."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x_BCHW: Tensor, embedding_BE: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x_BCHW)))
        scale, shift = self.modulate(embedding_BE)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv2(F.silu(self.norm2(hidden) * (1 + scale) + shift))
        out: Tensor = self.skip(x_BCHW) + hidden
        return out


class Attention(nn.Module):
    """Single-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x_BCHW)).flatten(2).mT.chunk(3, dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x_BCHW + self.out(mixed.mT.reshape(x_BCHW.shape))
        return out


class Level(nn.Module):
    """One block, with attention on small feature maps."""

    def __init__(self, inputs: int, outputs: int, embedding: int, attend: bool) -> None:
        super().__init__()
        self.block = Block(inputs, outputs, embedding)
        self.attention = Attention(outputs) if attend else nn.Identity()

    def forward(self, x_BCHW: Tensor, embedding_BE: Tensor) -> Tensor:
        out: Tensor = self.attention(self.block(x_BCHW, embedding_BE))
        return out


def fits(config: recipe.Unet, height_px: int, width_px: int) -> bool:
    """Whether the network can halve images of this size often enough, and group normalisation fits its channels."""
    return height_px == width_px and height_px % 2 ** (len(config.multipliers) - 1) == 0 and config.channels % 8 == 0


class UNet(nn.Module):
    """F(x, c_noise): B x 3 x H x W and B → B x 3 x H x W. H and W must be divisible by 2 once per further multiplier.

    With `mirrors` it has a condition for mirrored images, B bool; the default is none. Raises `ValueError` for a size or a
    number of channels that does not fit.
    """

    def __init__(self, config: recipe.Unet, size_px: int, mirrors: bool = False) -> None:
        super().__init__()
        if not fits(config, size_px, size_px):
            halvings = len(config.multipliers) - 1
            raise ValueError(
                f"a UNet with {halvings + 1} multipliers and {config.channels} channels needs images of a multiple of "
                f"{2**halvings} px (they are {size_px}) and channels in multiples of 8; change generator.unet"
            )
        embedding = 4 * config.channels
        self.frequencies = config.channels
        self.embed = nn.Sequential(nn.Linear(config.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        if mirrors:
            self.mirrored = nn.Parameter(torch.randn(embedding))
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        attend = [size_px >> level <= config.attention_below_px for level in range(len(widths))]
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(before, width, embedding, at) for before, width, at in zip([widths[0], *widths], widths, attend, strict=False)
        )
        self.middle = Level(widths[-1], widths[-1], embedding, attend[-1])
        self.up = nn.ModuleList(
            Level(after + width, width, embedding, at)
            for after, width, at in reversed(list(zip([*widths[1:], widths[-1]], widths, attend, strict=True)))
        )
        self.last_norm = nn.GroupNorm(8, widths[0])
        self.last = _zero(nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(self, x_BCHW: Tensor, c_noise_B: Tensor, mirrored_B: Tensor | None = None) -> Tensor:
        embedding = self.embed(_positional(c_noise_B, self.frequencies))
        if mirrored_B is not None:
            embedding = embedding + mirrored_B[:, None] * self.mirrored
        x = self.first(x_BCHW)
        skips = []
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else F.avg_pool2d(x, 2), embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for number, level in enumerate(self.up):
            x = x if number == 0 else F.interpolate(x, scale_factor=2)
            x = level(torch.cat([x, skips.pop()], dim=1), embedding)
        out: Tensor = self.last(F.silu(self.last_norm(x)))
        return out


def _positional(c_noise_B: Tensor, size: int) -> Tensor:
    """Sinusoidal embedding of the noise level, scaled so that its range of about -1.6 … 1.1 spans many periods."""
    half = size // 2
    rates = torch.exp(-math.log(1000) * torch.arange(half, device=c_noise_B.device) / half)
    angles = 250 * c_noise_B[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _zero(module: nn.Conv2d) -> nn.Conv2d:
    """Initialise the last layer of a residual branch to zero, so that the block starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
