"""The linear probes on data whose answer is known; the test split must decide nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from adainf.evaluation.features import Features
from adainf.evaluation.linear import LinearScore, epoch_order, lbfgs_probe, sgd, sgd_probe
from tests.evaluation.clusters import NOTHING, clusters

Probe = Callable[..., LinearScore]
PROBES = pytest.mark.parametrize(("probe", "grid"), [(lbfgs_probe, (1e-3, 1.0)), (sgd_probe, (0.01, 0.1))])


@PROBES
def test_separable_classes_are_separated_whatever_their_names(probe: Probe, grid: tuple[float, ...]) -> None:
    train, validation, test = (
        Features(values, 3 * labels + 4) for values, labels in (clusters(300, 0), clusters(60, 1), clusters(200, 2))
    )
    assert probe(train, validation, test, grid).accuracy == 1.0


@PROBES
def test_shuffled_labels_give_chance(probe: Probe, grid: tuple[float, ...]) -> None:
    train, test = clusters(600, 0), clusters(600, 2)
    shuffled = Features(train.values, np.random.default_rng(3).permutation(train.labels))
    assert probe(shuffled, clusters(60, 1), test, grid[:1]).accuracy == pytest.approx(1 / 3, abs=0.2)


@pytest.mark.parametrize(("probe", "good", "weak"), [(lbfgs_probe, 1e-4, 1e4), (sgd_probe, 0.1, 1e-30)])
def test_the_validation_split_chooses_and_the_test_split_does_not(probe: Probe, good: float, weak: float) -> None:
    """Validation labels that only a probe gets right which has hardly learnt, and names one class, must choose that one."""
    train = clusters(300, 0)
    named = np.bincount(train.labels).argmax() if probe is lbfgs_probe else 0
    validation = Features(clusters(60, 1).values, np.full(60, named))
    test = clusters(200, 2)
    if probe is lbfgs_probe:
        assert probe(train, validation, test, (good, weak)).chosen == weak
    assert probe(train, clusters(60, 1, noise=0.5), Features(test.values, np.full(200, named)), (good, weak)).chosen == good


def test_of_equals_the_most_careful_and_without_validation_the_middle_one() -> None:
    train, test = clusters(300, 0), clusters(50, 2)
    assert lbfgs_probe(train, clusters(60, 1), test, (1e-4, 1e-3, 1e-2)).chosen == 1e-2
    assert lbfgs_probe(train, NOTHING, test, (1e-4, 1e-3, 1e-2)).chosen == 1e-3
    assert sgd_probe(train, clusters(60, 1), test, (0.1, 0.05, 0.2)).chosen == 0.05
    assert sgd_probe(train, NOTHING, test, (0.1, 0.05, 0.2)).chosen == 0.1


@PROBES
@pytest.mark.parametrize("count", [90, 900])
def test_features_are_scaled_by_train_alone(probe: Probe, grid: tuple[float, ...], count: int) -> None:
    """Shifted test features must not be shifted back."""
    train, validation = clusters(count, 0, noise=0.5), clusters(60, 1)
    shifted = Features(clusters(200, 2, noise=0.5).values + 3.0, clusters(200, 2).labels)
    mean, std = train.values.mean(0), train.values.std(0)
    direct = Features((train.values - mean) / std, train.labels)
    expected = probe(direct, validation, Features((shifted.values - mean) / std, shifted.labels), grid[:1]).accuracy
    assert probe(train, validation, shifted, grid[:1]).accuracy == pytest.approx(expected, abs=0.011)
    assert expected < 0.9  # where shifted back, nearly all would be right


@pytest.mark.parametrize("count", [90, 900])
def test_the_penalty_is_that_of_the_formula(count: int) -> None:
    """Against scikit-learn's optimum of mean cross entropy + l2 / 2 |W|^2, whatever the number of images."""
    train, validation = clusters(count, 0, noise=0.5), clusters(60, 1)
    test = clusters(400, 2, noise=0.5)
    mean, std, l2 = train.values.mean(0), train.values.std(0), 0.1
    direct = LogisticRegression(C=1 / (l2 * count), max_iter=5000, tol=1e-8).fit((train.values - mean) / std, train.labels)
    expected = (direct.predict((test.values - mean) / std) == test.labels).mean()
    assert lbfgs_probe(train, validation, test, (l2,)).accuracy == pytest.approx(expected, abs=0.006)


def test_sgd_is_torchs_with_the_papers_schedule() -> None:
    """Weights after all epochs, against torch's layer, optimiser and schedule; 600 images are two batches and a part."""
    train = clusters(600, 0, noise=0.5)
    epochs, rate = 10, 0.3
    layer = torch.nn.Linear(5, 3).double()
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9, weight_decay=0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[6, 8], gamma=0.1)
    x, y = torch.from_numpy(train.values).double(), torch.from_numpy(train.labels)
    for epoch in range(epochs):
        for chosen in torch.from_numpy(epoch_order(600, epoch)).split(256):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[chosen]), y[chosen]).backward()
            optimizer.step()
        schedule.step()
    found = sgd(train.values.astype(np.float64), train.labels, 3, rate, epochs)
    np.testing.assert_allclose(found[:-1], layer.weight.detach().numpy().T, rtol=1e-9)
    np.testing.assert_allclose(found[-1], layer.bias.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    orders = [epoch_order(100, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(100, 0, seed=1).tolist() != orders[0]
