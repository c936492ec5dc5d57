"""An encoder as later stages use it: uint8 images → features, stored in one self-describing file."""

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
    """Mean and standard deviation of R, G and B, in 0..1, for the normalisation of inputs."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, split: Split) -> Normalisation:
        """Channel statistics of a split, from its manifest; a constant channel gets standard deviation 1."""
        if split.channel_means is None or split.channel_stds is None:
            raise ValueError(
                "the split has no channel statistics: it was indexed without decoding; index it again with decoding"
            )
        mean = tuple(round(value / 255, 6) for value in split.channel_means)
        return cls(mean, tuple(round(value / 255, 6) if value > 0.01 else 1.0 for value in split.channel_stds))

    def apply(self, x_BCHW: Tensor) -> Tensor:
        """Normalise B x 3 x H x W floats in 0..1."""
        mean = torch.tensor(self.mean, device=x_BCHW.device)[:, None, None]
        std = torch.tensor(self.std, device=x_BCHW.device)[:, None, None]
        return (x_BCHW - mean) / std


class Encoder(nn.Module):
    """A backbone with the normalisation of its inputs."""

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
        """Load an encoder file. Raises `BadInput` for a corrupt file, and for one whose backbone or stem is not `expected`:
        another stem padding has the same weight shapes and would load silently."""
        tensors, described = decode(data, where)
        try:
            config = recipe.Backbone.model_validate(described["backbone"])
            normalisation = Normalisation(*(tuple(described["normalisation"][name]) for name in ("mean", "std")))
        except (KeyError, TypeError, ValidationError):
            raise BadInput(f"{where} is not an encoder; use the encoder.safetensors that `adainf pretrain` wrote") from None
        if expected is not None and config != expected:
            raise BadInput(
                f"{where} contains {config}, but the recipe has {expected}; set pretrain.backbone to that of the file"
            )
        backbone = build_backbone(config)
        try:
            backbone.load_state_dict(tensors)
        except RuntimeError:
            raise BadInput(
                f"{where} contains weights of another {config.name} than this AdaInf builds; use the version that wrote it"
            ) from None
        return cls(config, backbone, normalisation)
