"""The model card ``encoder.json`` beside the weights of an encoder: how to use them, and what they were trained on."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict

from pydantic import Field, JsonValue
from torch import nn

from adainf import __version__
from adainf.errors import BadInput
from adainf.models.encoder import Encoder
from adainf.pipeline.records import Record, Request, sha256
from adainf.recipe import Pretrain
from adainf.storage import NotFound, open_store


class Card(Record):
    """One encoder. Parameter names are torchvision's or timm's; the input is (x / 255 - mean) / std."""

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


def load_encoder(uri: str) -> Encoder:
    """`adainf.load_encoder`: the encoder in a folder or ``s3://bucket/prefix``, ready for inference on the CPU.

    `uri` is the output of ``adainf export``, ``RUN/pretrain/ARM/seed-SEED``, or a file ``…/encoder.safetensors``. Raises
    `BadInput` where there is none, and where the weights are corrupt or not those of the card beside them.
    """
    folder, name = uri, "encoder.safetensors"
    if uri.endswith(".safetensors"):
        folder, _, name = f"./{uri}".rpartition("/") if "/" not in uri else uri.rpartition("/")
    store = open_store(folder or "/" * bool(uri))
    try:
        data = store.get(name)
    except NotFound:
        raise BadInput(f"{uri} contains no {name}; give the folder that `adainf export` wrote") from None
    described = None
    with suppress(NotFound):
        described = store.get("encoder.json")
    if described is not None and sha256(data) != _weights_sha256(described):
        raise BadInput(f"{folder}/{name} and {folder}/encoder.json do not belong together; run `adainf export` again")
    return Encoder.from_bytes(data, f"{folder}/{name}").eval()


def _weights_sha256(card: bytes) -> str | None:
    """That of the weights that a card describes; None for a corrupt card. Cards of later versions may have other fields."""
    try:
        return str(json.loads(card)["weights_sha256"])
    except (ValueError, LookupError, TypeError):
        return None


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
