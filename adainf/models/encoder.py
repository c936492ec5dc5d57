"""An encoder as later stages use it: uint8 images in, features out, and one file that says what it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adainf import recipe
from adainf.errors import BadInput
from adainf.models.backbones import Backbone, build_backbone
from adainf.pipeline.serialization import decode, encode
from adainf.shards.format.manifest import Split


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of R, G and B, in 0..1, that an encoder's inputs are standardised with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, split: Split) -> Normalisation:
        """That of the images of a split, as its manifest has it; a constant channel gets deviation 1."""
        if split.channel_means is None or split.channel_stds is None:
            raise ValueError("the split was indexed without decoding its images")
        mean = tuple(round(value / 255, 6) for value in split.channel_means)
        return cls(mean, tuple(round(value / 255, 6) if value > 0.01 else 1.0 for value in split.channel_stds))

    def apply(self, x_BCHW: Tensor) -> Tensor:
        """Standardise B x 3 x H x W floats of 0..1."""
        mean = torch.tensor(self.mean, device=x_BCHW.device)[:, None, None]
        std = torch.tensor(self.std, device=x_BCHW.device)[:, None, None]
        return (x_BCHW - mean) / std


class Encoder(nn.Module):
    """A backbone with what its inputs are standardised by."""

    def __init__(self, config: recipe.Backbone, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.config, self.backbone, self.normalisation = config, backbone, normalisation

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """uint8 B x H x W x 3 RGB → B x num_features."""
        features: Tensor = self.backbone(self.normalisation.apply(images_BHWC.permute(0, 3, 1, 2).float() / 255))
        return features

    def to_bytes(self) -> bytes:
        """Weights and description (backbone, stem, padding, normalisation) as one safetensors file."""
        described = {"backbone": self.config.model_dump(mode="json"), "normalisation": asdict(self.normalisation)}
        return encode(self.backbone.state_dict(), described)

    @classmethod
    def from_bytes(cls, data: bytes, where: str, expected: recipe.Backbone | None = None) -> Encoder:
        """The encoder of a file. Raises `BadInput` for a damaged file, and for one of another backbone or stem than
        `expected`: another stem padding has the same weight shapes, and would load without a sound."""
        tensors, described = decode(data, where)
        try:
            config = recipe.Backbone.model_validate(described["backbone"])
            normalisation = Normalisation(*(tuple(described["normalisation"][name]) for name in ("mean", "std")))
        except (KeyError, TypeError, ValidationError):
            raise BadInput(f"{where} holds no encoder; give the encoder.safetensors that `adainf pretrain` wrote") from None
        if expected is not None and config != expected:
            raise BadInput(
                f"{where} holds {config}, the recipe asks for {expected}; set pretrain.backbone to what the file holds"
            )
        backbone = build_backbone(config)
        try:
            backbone.load_state_dict(tensors)
        except RuntimeError:
            raise BadInput(
                f"{where} holds weights of another {config.name} than this AdaInf builds; use the version that made it"
            ) from None
        return cls(config, backbone, normalisation)
