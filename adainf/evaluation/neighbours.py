"""Exact k-nearest-neighbour classification by cosine similarity: majority and weighted vote."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from adainf.evaluation.features import Features

_TEST_IMAGES_AT_ONCE = 256


class Neighbours(NamedTuple):
    """The k nearest training images of each of n test images, nearest first."""

    cosines: NDArray[np.float32]
    """n x k."""
    labels: NDArray[np.int64]
    """n x k."""


def nearest(train: Features, test: Features, count: int) -> Neighbours:
    """The `count` nearest training images (all, if there are fewer) of every test image."""
    count = min(count, len(train.labels))
    train_ND, test_nD = _unit(train.values), _unit(test.values)
    cosines, labels = np.empty((len(test_nD), count), np.float32), np.empty((len(test_nD), count), np.int64)
    with threadpool_limits(1):  # a fixed order of summation on every machine
        for first in range(0, len(test_nD), _TEST_IMAGES_AT_ONCE):
            part = slice(first, first + _TEST_IMAGES_AT_ONCE)
            near_bN = test_nD[part] @ train_ND.T
            found = np.argpartition(-near_bN, count - 1, axis=1)[:, :count]
            order = np.argsort(-np.take_along_axis(near_bN, found, axis=1), axis=1, kind="stable")
            found = np.take_along_axis(found, order, axis=1)
            cosines[part], labels[part] = np.take_along_axis(near_bN, found, axis=1), train.labels[found]
    return Neighbours(cosines, labels)


def majority_vote(found: Neighbours, neighbours: int) -> NDArray[np.int64]:
    """Most frequent label of the nearest `neighbours`; ties go to the lowest, as in scikit-learn's `KNeighborsClassifier`."""
    return _vote(found.labels[:, :neighbours], np.ones_like(found.cosines[:, :neighbours], np.float64))


def weighted_vote(found: Neighbours, neighbours: int, temperature: float) -> NDArray[np.int64]:
    """Each of the nearest `neighbours` votes with weight exp(cos / T) (Wu et al. 2018, section 3.4), as in lightly and DINO."""
    # Subtract the largest cosine: the vote is the same, and exp does not overflow.
    cosines = found.cosines[:, :neighbours].astype(np.float64)
    return _vote(found.labels[:, :neighbours], np.exp((cosines - cosines[:, :1]) / temperature))


def _vote(labels_nk: NDArray[np.int64], weights_nk: NDArray[np.float64]) -> NDArray[np.int64]:
    votes_nC = np.zeros((len(labels_nk), int(labels_nk.max()) + 1))
    np.add.at(votes_nC, (np.arange(len(labels_nk))[:, None], labels_nk), weights_nk)
    return np.argmax(votes_nC, axis=1)


def _unit(values_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length; a zero row stays zero."""
    lengths = np.linalg.norm(values_ND, axis=1, keepdims=True)
    return (values_ND / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
