"""The model card ``encoder.json`` beside the weights of an encoder: how to use them, and what they were trained on."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field, JsonValue
from torch import nn

from adainf import __version__
from adainf.models.encoder import Encoder
from adainf.pipeline.records import Record, Request
from adainf.recipe import Pretrain


class Card(Record):
    """One encoder. Parameter names are torchvision's; the input is (x / 255 - mean) / std."""

    made_by: str = f"adainf {__version__}"
    weights_sha256: str
    """Of ``encoder.safetensors``."""
    features: int
    """Dimensions of the features of an image."""
    backbone: dict[str, JsonValue]
    """Name, stem and padding as in the recipe."""
    conv1: dict[str, JsonValue] | None
    """Arguments of the stem's `torch.nn.Conv2d`, where the backbone has one; torchvision's default is the imagenet stem."""
    mean: tuple[float, ...]
    """Of R, G and B, in 0..1."""
    std: tuple[float, ...]
    image_size_px: tuple[int, int]
    """(height, width) of the training images."""
    arm: str
    seed: int
    method: dict[str, JsonValue]
    steps: int
    global_batch: int
    made_from: dict[str, str]
    """SHA-256 of the manifests of the images (`real`, `generated`) and of the `plan`, where the arm uses them."""
    results: list[dict[str, JsonValue]] = Field(default=[])
    """Results of `evaluate` (`adainf.evaluation.scores.Measure`); empty before it ran."""

    @classmethod
    def of(
        cls, encoder: Encoder, weights_sha256: str, request: Request, config: Pretrain, image_size_px: tuple[int, int]
    ) -> Card:
        """`request`: the request of the pretrained artifact."""
        return cls.model_validate(
            {
                "weights_sha256": weights_sha256,
                "features": encoder.backbone.num_features,
                "backbone": encoder.config.model_dump(mode="json"),
                "conv1": _convolution(getattr(encoder.backbone, "conv1", None)),
                **asdict(encoder.normalisation),
                "image_size_px": image_size_px,
                "arm": request.settings["arm"],
                "seed": request.settings["seed"],
                "method": config.method.model_dump(mode="json"),
                "steps": config.steps,
                "global_batch": config.global_batch,
                "made_from": request.inputs,
            }
        )


def _convolution(stem: nn.Module | None) -> dict[str, JsonValue] | None:
    if not isinstance(stem, nn.Conv2d):
        return None
    return {
        "in_channels": stem.in_channels,
        "out_channels": stem.out_channels,
        "kernel_size": list(stem.kernel_size),
        "stride": list(stem.stride),
        "padding": list(stem.padding) if isinstance(stem.padding, tuple) else stem.padding,
        "bias": stem.bias is not None,
    }
