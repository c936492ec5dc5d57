"""The handwritten digits of scikit-learn: 1,797 grey images of 8 x 8 pixels, without a download."""

from __future__ import annotations

import numpy as np

from adainf.errors import BadInput
from adainf.recipe import Digits
from adainf.sources.base import ArrayImages, ImageSource, fingerprint_of


def open_digits(settings: Digits) -> ImageSource:
    """All digits, without a test split. Raises `BadInput` where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits  # takes half a second; only this source needs it
    except ImportError:
        raise BadInput("real.kind digits needs scikit-learn; pip install 'adainf[train]'") from None
    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # pixels are 0 … 16
    labels = labels.astype(np.int64)
    return ImageSource(
        train=ArrayImages(images, labels, "scikit-learn's digits"),
        test=None,
        classes=[str(digit) for digit in range(10)],
        fingerprint=fingerprint_of(images, labels),
    )
