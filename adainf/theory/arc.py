"""ACR and ARC: connectivity from nearest neighbours among views, without labels (Wang et al. 2022)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_ratio(features_NVD: NDArray[np.float32]) -> float:
    """ACR: the share of views whose nearest other view, by cosine, is one of another image; of N images, V views each.

    Of equally near ones the view of the lowest number counts. Raises `ValueError` where an image has one view alone.
    """
    images, views, width = features_NVD.shape
    if views < 2:
        raise ValueError("ACR needs two views of an image at least")
    flat_MD = features_NVD.reshape(-1, width).astype(np.float64)
    flat_MD /= np.maximum(np.linalg.norm(flat_MD, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    confused = 0
    for image in range(images):  # views of one image at a time: M x M would not fit
        own = slice(image * views, (image + 1) * views)
        likeness_VM = flat_MD[own] @ flat_MD.T
        np.fill_diagonal(likeness_VM[:, own], -np.inf)
        confused += int((likeness_VM.argmax(axis=1) // views != image).sum())
    return confused / (images * views)


def relative_confusion(trained: float, untrained: float) -> float | None:
    """ARC = (1 - ACR of the trained encoder) / (1 - ACR of the untrained one); None where the latter confuses all views."""
    return (1 - trained) / (1 - untrained) if untrained < 1 else None
