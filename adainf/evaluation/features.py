"""The features that a frozen encoder gives to images, computed by all processes of a launch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf import dist
from adainf.exitcodes import BadInput
from adainf.models.encoder import Encoder
from adainf.shards.png import Pixels


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
    encoder = encoder.to(device).eval()  # not in inference mode: weights that were moved there could not be trained any more
    count, width = len(images), encoder.backbone.num_features
    batches = -(-count // batch)
    rows = -(-batches // dist.world_size()) * batch
    start, stop = (min(count, rows * (dist.rank() + more)) for more in (0, 1))
    # As many rows on every rank, for the collective; only the last ranks lack any, so the surplus is the end of the whole.
    with torch.inference_mode():
        local_RD = torch.zeros(rows, width, device=device)
        for first in range(start, stop, batch):
            last = min(first + batch, stop)
            local_RD[first - start : last - start] = _forward(encoder, torch.from_numpy(images[first:last]).to(device))
        return dist.gather_rows(local_RD)[:count].cpu().numpy()


@torch.inference_mode()
def features_of(encoder: Encoder, images: Pixels, batch: int, device: torch.device) -> NDArray[np.float32]:
    """The same by this process alone."""
    encoder = encoder.to(device).eval()
    parts = [torch.from_numpy(images[at : at + batch]) for at in range(0, len(images), batch)]
    return torch.cat([_forward(encoder, part.to(device)) for part in parts]).cpu().numpy()


def _forward(encoder: Encoder, images_BHWC: torch.Tensor) -> torch.Tensor:
    try:
        return encoder(images_BHWC).float()
    except AssertionError as error:  # as transformers of a fixed number of patches say it
        height, width = images_BHWC.shape[1:3]
        raise BadInput(
            f"a {encoder.config.name} of this kind takes no images of {height} x {width} px ({error}); bring them to the size "
            "that it was trained on"
        ) from None
