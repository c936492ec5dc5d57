"""The features that a frozen encoder gives to images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.models.encoder import Encoder
from adainf.shards.png import Pixels


@torch.inference_mode()
def extract(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """N x H x W x 3 uint8 → N x D float32, in evaluation mode and without augmentation."""
    encoder = encoder.to(device).eval()
    parts = [
        encoder(torch.from_numpy(images[first : first + batch]).to(device)).float().cpu().numpy()
        for first in range(0, len(images), batch)
    ]
    return np.concatenate(parts) if parts else np.empty((0, encoder.backbone.num_features), np.float32)
