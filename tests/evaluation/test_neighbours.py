"""Nearest neighbours against scikit-learn's, and against the loop of the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from adainf.evaluation.features import Features
from adainf.evaluation.neighbours import majority_vote, nearest, weighted_vote
from tests.evaluation.clusters import clusters

TRAIN, TEST = clusters(900, 0, noise=0.8), clusters(700, 2, noise=0.8)
"""More test images than are looked at together."""


@pytest.mark.parametrize("k", [1, 2, 20, 200, 900])
def test_the_majority_vote_is_scikit_learns(k: int) -> None:
    found = majority_vote(nearest(TRAIN, TEST, max(k, 20)), k)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(TRAIN.values, TRAIN.labels)
    assert found.tolist() == model.predict(TEST.values).tolist()


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.1), (200, 0.1), (200, 1.0), (200, 0.001)])
def test_the_weighted_vote_is_the_papers_loop(k: int, temperature: float) -> None:
    found = weighted_vote(nearest(TRAIN, TEST, 200), k, temperature)
    expected = []
    train = [row / np.linalg.norm(row) for row in TRAIN.values.astype(np.float64)]
    for row in TEST.values[:150].astype(np.float64):
        cosines = np.array([row @ other for other in train]) / np.linalg.norm(row)
        votes = np.zeros(3, np.longdouble)
        for index in sorted(range(len(train)), key=lambda index: -cosines[index])[:k]:
            votes[TRAIN.labels[index]] += np.exp(np.longdouble(cosines[index]) / temperature)
        expected.append(int(votes.argmax()))
    assert found[:150].tolist() == expected


def test_weights_let_a_near_one_beat_two_far_ones_and_a_majority_vote_does_not() -> None:
    values = np.array([[1, 0.01], [1, 0.9], [1, 0.95]], np.float32)
    found = nearest(Features(values, np.array([0, 1, 1])), Features(np.array([[1, 0]], np.float32), np.array([0])), 3)
    assert majority_vote(found, 3).tolist() == [1]
    assert weighted_vote(found, 3, 0.1).tolist() == [0]
    assert weighted_vote(found, 3, 10.0).tolist() == [1]


def test_the_length_of_a_feature_does_not_count() -> None:
    lengths = np.random.default_rng(4).uniform(0.1, 100, (900, 1)).astype(np.float32)
    longer = nearest(Features(TRAIN.values * lengths, TRAIN.labels), TEST, 5)
    np.testing.assert_allclose(longer.cosines, nearest(TRAIN, TEST, 5).cosines, atol=1e-6)


def test_neighbours_are_in_order_and_no_more_than_there_are() -> None:
    found = nearest(clusters(10, 0), clusters(20, 1), 200)
    assert found.cosines.shape == found.labels.shape == (20, 10)
    assert (np.diff(found.cosines, axis=1) <= 0).all()
    assert (np.sort(found.labels, axis=1) == np.sort(clusters(10, 0).labels)).all()


def test_features_that_are_zero_are_no_crash() -> None:
    """As a network of dead units gives them."""
    found = nearest(
        Features(np.zeros((4, 2), np.float32), np.arange(4)), Features(np.zeros((1, 2), np.float32), np.array([0])), 2
    )
    assert np.isfinite(found.cosines).all()
    assert weighted_vote(found, 2, 0.1).shape == (1,)
