"""Encoders for tests, and a digest that detects changes."""

from __future__ import annotations

import hashlib

import torch

from adainf import recipe
from adainf.models.backbones import build_backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.runtime.determinism import seeded_init


def make_encoder(seed: int = 0, **config: object) -> Encoder:
    described = recipe.Backbone.model_validate({"name": "resnet-small", **config})
    with seeded_init(seed):
        return Encoder(described, build_backbone(described), Normalisation((0.5,) * 3, (0.3,) * 3))


def digest(encoder: torch.nn.Module) -> str:
    """SHA-256 over every weight and buffer, running statistics among them."""
    found = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    return found.hexdigest()
