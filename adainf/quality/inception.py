"""The feature space of published FIDs: torch-fidelity's Inception-v3 of 2015, with weights that the user provides."""

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
"""The last pooling layer, whose features FID and KID use."""


def inception(config: Inception, batch: int, device: torch.device) -> Space:
    """The feature space of the weights file in `config`.

    Raises `BadInput` if the file's SHA-256 is not the recipe's (checked before the file is parsed), if it holds anything but
    tensors, or if torch-fidelity is not installed.
    """
    weights = _checked(config)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise BadInput(
            "quality.inception needs torch-fidelity: pip install 'adainf[inception]', or set quality.inception: null"
        ) from None
    try:
        network = FeatureExtractorInceptionV3("inception", [LAYER], _tensors_only(weights)).to(device)
    except Exception as error:  # torch, zip and pickle raise many types for a wrong file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{config.weights} does not hold torch-fidelity's Inception-v3 weights ({reason}); use torch-fidelity's file "
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
            f"quality.inception.weights: cannot read {config.weights} ({error.strerror}); set it to the weights file, or set "
            "quality.inception: null"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != config.sha256:
        raise BadInput(
            f"{config.weights} has SHA-256 {found}, but quality.inception.sha256 is {config.sha256}; use the file with that "
            "SHA-256"
        )
    return data


def _tensors_only(data: bytes) -> io.BytesIO:
    """The same tensors, re-saved by us: torch-fidelity unpickles its input, and `weights_only` keeps code from running."""
    clean = io.BytesIO()
    torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), clean)
    clean.seek(0)
    return clean
