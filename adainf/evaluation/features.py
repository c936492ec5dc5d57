"""The features that a frozen encoder gives to images, computed by all processes of a launch."""

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
    """Features N x D (float32) and the labels N (int64) of their images."""

    values: NDArray[np.float32]
    labels: NDArray[np.int64]


def extract(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """N x H x W x 3 uint8 → N x D float32, in evaluation mode and without augmentation; the encoder stays in that mode.

    Every process calls this with the same images and gets the features of all. Each computes a contiguous run of whole
    batches, so that batches, and with them the bits, are those of one process. All features lie on the device for a moment.
    Raises `BadInput` where the backbone does not take images of this size.
    """
    count, width = len(images), encoder.backbone.num_features
    batches = -(-count // batch)
    rows = -(-batches // distributed.world_size()) * batch
    start, stop = (min(count, rows * (distributed.rank() + more)) for more in (0, 1))
    # As many rows on every rank, for the collective; only the last ranks lack any, so the surplus is the end of the whole.
    local_RD = torch.zeros(rows, width, device=device)
    local_RD[: stop - start] = _features(encoder, images[start:stop], batch, device)
    return distributed.gather_rows(local_RD)[:count].cpu().numpy()


def extract_alone(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """The same by this process, whatever the others do."""
    return _features(encoder, images, batch, device).cpu().numpy()


def _features(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> torch.Tensor:
    encoder = encoder.to(device).eval()  # not in inference mode: weights that were moved there could not be trained any more
    features_ND = torch.empty(len(images), encoder.backbone.num_features, device=device)
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            part = images[first : first + batch]
            features_ND[first : first + batch] = _forward(encoder, torch.from_numpy(part).to(device))
    return features_ND


def _forward(encoder: Encoder, images_BHWC: torch.Tensor) -> torch.Tensor:
    try:
        return encoder(images_BHWC).float()
    except AssertionError as error:  # as transformers of a fixed number of patches say it
        height, width = images_BHWC.shape[1:3]
        raise BadInput(
            f"a {encoder.config.name} of this kind takes no images of {height} x {width} px ({error}); bring them to the size "
            "that it was trained on"
        ) from None
