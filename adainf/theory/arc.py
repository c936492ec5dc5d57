"""ACR and ARC: label-free connectivity measures from nearest neighbours among views (Wang et al. 2022)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_ratio(features_NVD: NDArray[np.float32]) -> float:
    """ACR: share of views whose nearest other view, by cosine, belongs to another image; N images, V views each.

    Ties go to the view with the lowest index. Raises `ValueError` for V < 2.
    """
    images, views, width = features_NVD.shape
    if views < 2:
        raise ValueError(f"ACR needs at least 2 views per image, not {views}")
    flat_MD = features_NVD.reshape(-1, width).astype(np.float64)
    flat_MD /= np.maximum(np.linalg.norm(flat_MD, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    confused = 0
    for image in range(images):  # one image at a time: M x M would not fit into memory
        own = slice(image * views, (image + 1) * views)
        similarity_VM = flat_MD[own] @ flat_MD.T
        np.fill_diagonal(similarity_VM[:, own], -np.inf)
        confused += int((similarity_VM.argmax(axis=1) // views != image).sum())
    return confused / (images * views)


def relative_confusion(trained: float, untrained: float) -> float | None:
    """ARC = (1 - ACR of the trained encoder) / (1 - ACR of the untrained one); None if the latter is 1."""
    return (1 - trained) / (1 - untrained) if untrained < 1 else None
