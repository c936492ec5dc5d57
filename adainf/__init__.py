"""Adaptive data inflation for contrastive learning: measure generated data, plan the inflation, compare it with controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adainf.models.encoder import Encoder

__all__ = ["load_encoder"]
__version__ = "0.1.0"


def load_encoder(uri: str) -> Encoder:
    """An exported encoder, a `torch.nn.Module` in eval mode: uint8 B x H x W x 3 RGB -> B x features.

    `uri`: the folder or ``s3://bucket/prefix`` that ``adainf export`` wrote; see `adainf.models.card.load_encoder`.
    """
    from adainf.models.card import load_encoder as load  # imports torch, which takes seconds

    return load(uri)
