"""The space of papers: Inception-v3 of 2015 as torch-fidelity has it, with weights that the user brings."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.quality.spaces import Space
from adainf.recipe import Inception
from adainf.shards.format.png import Pixels

LAYER = "2048"
"""The last pooling, whose features FID and KID are made of."""


def inception(config: Inception, batch: int, device: torch.device) -> Space:
    """The space of the weights file of `config`.

    Raises `BadInput` where the file is not the one whose SHA-256 the recipe gives (before anything is read from it), where it
    holds anything but tensors, and where torch-fidelity is not installed.
    """
    weights = _checked(config)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise BadInput(
            "quality.inception needs torch-fidelity: pip install 'adainf[inception]', or set quality.inception: null"
        ) from None
    try:
        network = FeatureExtractorInceptionV3("inception", [LAYER], _without_code(weights)).to(device)
    except Exception as error:  # torch, zip and pickle alike: whatever it is, the file holds no such weights
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{config.weights} holds no weights of Inception-v3 as torch-fidelity wants them ({reason}); give its file "
            "weights-inception-2015-12-05-6726825d.pth"
        ) from None

    def compute(images: Pixels) -> NDArray[np.float32]:
        found = np.empty((len(images), int(LAYER)), np.float32)
        with torch.inference_mode():
            for first in range(0, len(images), batch):
                images_BCHW = torch.from_numpy(images[first : first + batch]).permute(0, 3, 1, 2)
                found[first : first + batch] = network(images_BCHW.to(device))[0].cpu()
        return found

    return Space("inception", config.sha256, compute)


def _checked(config: Inception) -> bytes:
    try:
        data = Path(config.weights).read_bytes()
    except OSError as error:
        raise BadInput(
            f"quality.inception.weights: {config.weights} cannot be read ({error.strerror}); give the file, or set "
            "quality.inception: null"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != config.sha256:
        raise BadInput(
            f"{config.weights} has SHA-256 {found}, the recipe's quality.inception.sha256 is {config.sha256}; give that file"
        )
    return data


def _without_code(data: bytes) -> io.BytesIO:
    """The same tensors in a file that we wrote: torch-fidelity unpickles whatever it is given, and this runs nothing of it."""
    clean = io.BytesIO()
    torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), clean)
    clean.seek(0)
    return clean
