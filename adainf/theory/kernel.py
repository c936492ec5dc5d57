"""The sampled augmentation graph of images: view probabilities from a kernel on an encoder's features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

Features = NDArray[np.float32]
_REACH = 3.0
"""Distance, in bandwidths, at which the kernel is truncated."""
_LEAST = 1e-6
"""Lower limit of the bandwidth, for a collapsed encoder or mostly duplicate images: the size of rounding errors."""


def nearest_distance(features_ND: Features) -> float:
    """Median distance of an image to its nearest other one, on unit features: the kernel's bandwidth.

    Computed on images without augmentation, so that all strengths share one bandwidth.
    """
    unit_ND = _unit(features_ND)
    squared_NN = _squared_distances(unit_ND, unit_ND)
    np.fill_diagonal(squared_NN, np.inf)
    return max(float(np.sqrt(np.median(squared_NN.min(axis=1)))), _LEAST)


def kernel_views(features_NVD: Features, bandwidth: float) -> csr_matrix:
    """A(x|i), N x NV: each image's V sampled views, smoothed over the views of all images by a Gaussian kernel.

    An approximation of what the toy computes exactly: sampled views of two images are never equal, so without a kernel every
    image would be its own component. Distances are on unit features; rows sum to 1.
    """
    images, views, width = features_NVD.shape
    unit_MD = _unit(features_NVD.reshape(-1, width))
    rows = []
    for image in range(images):
        squared_VM = _squared_distances(unit_MD[image * views : (image + 1) * views], unit_MD)
        weights_VM = np.exp(-squared_VM / (2 * bandwidth**2)) * (squared_VM <= (_REACH * bandwidth) ** 2)
        row_M = (weights_VM / weights_VM.sum(axis=1, keepdims=True)).mean(axis=0)
        rows.append(csr_matrix(row_M))
    return csr_matrix(vstack(rows))


def _unit(features_ND: Features) -> NDArray[np.float64]:
    features = features_ND.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _squared_distances(some_ND: NDArray[np.float64], others_MD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of unit rows; clamped, as rounding may give negative values."""
    return np.maximum(2 - 2 * some_ND @ others_MD.T, 0)
