"""The probes on data whose answer is known; the test split must decide nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from adainf import recipe
from adainf.evaluation.features import extract
from adainf.evaluation.probes import Labelled, knn_accuracy, linear_probe
from adainf.models.backbones import build_backbone
from adainf.models.encoder import Encoder, Normalisation


def clusters(count: int, seed: int, noise: float = 0.1) -> Labelled:
    """Three classes on three directions of five dimensions."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    features = np.eye(5)[labels] + noise * random.standard_normal((count, 5))
    return Labelled(features.astype(np.float32), labels)


def test_separable_classes_are_separated() -> None:
    train, validation, test = clusters(300, 0), clusters(60, 1), clusters(200, 2)
    assert linear_probe(train, validation, test, (1e-3, 1.0)).accuracy == 1.0
    assert knn_accuracy(train, test, 20) == 1.0


def test_shuffled_labels_give_chance() -> None:
    train, test = clusters(600, 0), clusters(600, 2)
    shuffled = Labelled(train.features, np.random.default_rng(3).permutation(train.labels))
    assert linear_probe(shuffled, clusters(60, 1), test, (1e-2,)).accuracy == pytest.approx(1 / 3, abs=0.2)
    assert knn_accuracy(shuffled, test, 20) == pytest.approx(1 / 3, abs=0.2)


def test_the_validation_split_chooses_the_penalty_and_the_test_split_does_not() -> None:
    """Validation labels that only an over-regularised probe (which names the majority) gets right must choose that one."""
    train = clusters(300, 0)
    majority = np.bincount(train.labels).argmax()
    validation = Labelled(clusters(60, 1).features, np.full(60, majority))
    test = clusters(200, 2)
    assert linear_probe(train, validation, test, (1e-4, 1e4)).l2 == 1e4
    assert linear_probe(train, clusters(60, 1), Labelled(test.features, np.full(200, majority)), (1e-4, 1e4)).l2 == 1e-4


def test_of_equal_penalties_the_strongest_and_without_validation_the_middle_one() -> None:
    train, test = clusters(300, 0), clusters(50, 2)
    nothing = Labelled(np.empty((0, 5), np.float32), np.empty(0, np.int64))
    assert linear_probe(train, clusters(60, 1), test, (1e-4, 1e-3, 1e-2)).l2 == 1e-2
    assert linear_probe(train, nothing, test, (1e-4, 1e-3, 1e-2)).l2 == 1e-3


def test_nearest_neighbours_do_not_see_the_length_of_a_feature() -> None:
    train, test = clusters(300, 0), clusters(100, 2)
    lengths = np.random.default_rng(4).uniform(0.1, 100, (300, 1)).astype(np.float32)
    assert knn_accuracy(Labelled(train.features * lengths, train.labels), test, 5) == 1.0


def test_more_neighbours_than_images_are_all_images() -> None:
    assert 0 <= knn_accuracy(clusters(10, 0), clusters(20, 1), 200) <= 1


def test_features_do_not_depend_on_the_batch_and_leave_the_encoder_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
    config = recipe.Backbone(name="resnet-small")
    encoder = Encoder(config, build_backbone(config), Normalisation((0.5,) * 3, (0.3,) * 3))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    one = extract(encoder, images, 23, torch.device("cpu"))
    many = extract(encoder, images, 7, torch.device("cpu"))
    assert one.shape == (23, 128)
    np.testing.assert_allclose(one, many, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("count", [90, 900])
def test_the_penalty_and_the_scaling_are_the_formulas(count: int) -> None:
    """Against the optimum's own condition: the gradient of mean cross entropy + l2 / 2 |W|^2 vanishes, features scaled by
    train alone. Shifted test features must not be shifted back."""
    train, validation = clusters(count, 0, noise=0.5), clusters(60, 1)
    shifted = Labelled(clusters(200, 2, noise=0.5).features + 3.0, clusters(200, 2).labels)
    mean, std = train.features.mean(0), train.features.std(0)
    l2 = 0.1
    direct = LogisticRegression(C=1 / (l2 * count), max_iter=5000, tol=1e-8).fit((train.features - mean) / std, train.labels)
    expected = (direct.predict((shifted.features - mean) / std) == shifted.labels).mean()
    assert linear_probe(train, validation, shifted, (l2,)).accuracy == pytest.approx(expected, abs=0.011)


def test_every_neighbour_has_one_vote_however_near() -> None:
    """Two far neighbours outvote one that is nearly equal."""
    features = np.array([[1, 0.01], [1, 0.6], [1, 0.7]], np.float32)
    train = Labelled(features, np.array([0, 1, 1]))
    assert knn_accuracy(train, Labelled(np.array([[1, 0]], np.float32), np.array([1])), 3) == 1.0
