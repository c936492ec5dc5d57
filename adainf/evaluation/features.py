"""Features of a frozen encoder, computed by all processes of a launch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.models.encoder import Encoder
from adainf.runtime import distributed
from adainf.shards.format.png import Pixels


class Features(NamedTuple):
    """Features N x D (float32) and labels N (int64)."""

    values: NDArray[np.float32]
    labels: NDArray[np.int64]


def extract(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """N x H x W x 3 uint8 → N x D float32, in evaluation mode and without augmentation; the encoder stays in that mode.

    Every process calls this with the same images and gets all features. Each process computes a contiguous range of full
    batches, so the batches, and the bits of the result, are those of one process. All features must fit on the device.
    Raises `BadInput` if the backbone does not accept images of this size.
    """
    count, width = len(images), encoder.backbone.num_features
    batches = -(-count // batch)
    rows = -(-batches // distributed.world_size()) * batch
    start, stop = (min(count, rows * (distributed.rank() + more)) for more in (0, 1))
    # The collective needs equal row counts. Only the last ranks are padded, so the padding is at the end of the result.
    local_RD = torch.zeros(rows, width, device=device)
    local_RD[: stop - start] = _features(encoder, images[start:stop], batch, device)
    return distributed.gather_rows(local_RD)[:count].cpu().numpy()


def extract_local(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """As `extract`, in this process only and without collectives."""
    return _features(encoder, images, batch, device).cpu().numpy()


def _features(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> torch.Tensor:
    encoder = encoder.to(device).eval()  # outside inference mode: parameters moved inside it could not be trained later
    features_ND = torch.empty(len(images), encoder.backbone.num_features, device=device)
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            part = images[first : first + batch]
            features_ND[first : first + batch] = _forward(encoder, torch.from_numpy(part).to(device))
    return features_ND


def _forward(encoder: Encoder, images_BHWC: torch.Tensor) -> torch.Tensor:
    try:
        return encoder(images_BHWC).float()
    except AssertionError as error:  # raised by transformers with a fixed number of patches
        height, width = images_BHWC.shape[1:3]
        raise BadInput(
            f"this {encoder.config.name} does not accept images of {height} x {width} px ({error}); resize them to the size "
            "that it was trained on"
        ) from None
