"""UNet2DModel of diffusers as the network F of a diffusion model, for full-size images."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from adainf import recipe
from adainf.errors import BadInput


def unet2d_model() -> Any:
    """The class `UNet2DModel`. Raises `BadInput` where diffusers is missing or conflicts with another installed library."""
    try:
        from diffusers import UNet2DModel
    except (ImportError, RuntimeError) as error:  # RuntimeError: raised by a library that diffusers imports
        reason = str(error).strip().splitlines()[0]
        raise BadInput(
            f"generator.unet.kind is diffusers, which cannot be imported ({reason}); run `pip install 'adainf[generate]'`, in "
            "an environment of its own where transformers wants another huggingface-hub"
        ) from None
    return UNet2DModel


class DiffusersUNet(nn.Module):
    """Same interface as `unet.UNet`, around `UNet2DModel` (the network of Ho et al. 2020). Needs diffusers."""

    def __init__(self, config: recipe.Unet, size_px: int, mirrors: bool = False) -> None:
        super().__init__()
        levels = range(len(config.multipliers))
        attend = ["Attn" if size_px >> level <= config.attention_below_px else "" for level in levels]
        self._mirrors = mirrors
        # Its "fourier" embedding takes the logarithm of its input, but c_noise is a logarithm already.
        self.unet = unet2d_model()(
            sample_size=size_px,
            block_out_channels=[config.channels * multiplier for multiplier in config.multipliers],
            down_block_types=[f"{prefix}DownBlock2D" for prefix in attend],
            up_block_types=[f"{prefix}UpBlock2D" for prefix in reversed(attend)],
            layers_per_block=config.blocks,
            attention_head_dim=config.channels,
            norm_num_groups=8 if config.channels % 32 else 32,
            time_embedding_type="positional",
            num_class_embeds=2 if mirrors else None,
        )

    def forward(self, x_BCHW: Tensor, c_noise_B: Tensor, mirrored_B: Tensor | None = None) -> Tensor:
        """As `UNet.forward`."""
        classes = None
        if self._mirrors:
            classes = c_noise_B.new_zeros(len(c_noise_B)).long() if mirrored_B is None else mirrored_B.long()
        # Its timesteps are 0 … 1000; scaled to that range, the noise level spans many periods of the embedding.
        out: Tensor = self.unet(x_BCHW, 250 * c_noise_B, class_labels=classes, return_dict=False)[0]
        return out
