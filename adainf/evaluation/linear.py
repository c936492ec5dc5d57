"""The linear probe: multinomial logistic regression on frozen features, by L-BFGS or by SGD.

Features are standardised by the mean and standard deviation of `train`. A grid of penalties or learning rates is fitted on
`train`, the best accuracy on `validation` selects one, and `test` is read once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from adainf.evaluation.features import Features

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]
Classifier = Callable[[Matrix], Labels]
"""Standardised features n x D → labels n."""

EPOCHS, BATCH, MOMENTUM = 100, 256, 0.9
STEPS_DOWN_AT, STEP_DOWN = (60, 80), 0.1


class LinearScore(NamedTuple):
    hits: NDArray[np.bool_]
    """Whether each image of `test` is classified correctly."""
    chosen: float
    """The selected penalty or learning rate."""

    @property
    def accuracy(self) -> float:
        """0..1, on `test`."""
        return float(np.mean(self.hits))


def lbfgs_probe(train: Features, validation: Features, test: Features, l2_grid: Sequence[float]) -> LinearScore:
    """Scikit-learn's L-BFGS on mean cross entropy + l / 2 |W|^2.

    Ties on `validation` go to the largest penalty l; without a validation split the middle one is used.
    """

    def fit(x_ND: Matrix, labels_N: Labels, l2: float) -> Classifier:
        model = LogisticRegression(C=1 / (l2 * len(labels_N)), max_iter=2000).fit(x_ND, labels_N)
        predict: Classifier = model.predict
        return predict

    return _probe(train, validation, test, sorted(l2_grid, reverse=True), fit)


def sgd_probe(train: Features, validation: Features, test: Features, learning_rates: Sequence[float]) -> LinearScore:
    """The paper's linear evaluation (solo-learn's) on cached features.

    100 epochs of SGD in batches of 256 (the last of an epoch may be smaller), momentum 0.9, no weight decay, the learning rate
    divided by 10 after 60 and after 80 epochs. Weights and biases start at zero, and the order of an epoch depends only on its
    number. Unlike the paper, images are not augmented, features are standardised, and `validation` selects the learning rate:
    ties go to the smallest; without a validation split the middle one is used.
    """

    def fit(x_ND: Matrix, labels_N: Labels, learning_rate: float) -> Classifier:
        classes, targets_N = np.unique(labels_N, return_inverse=True)
        weights = sgd(x_ND, targets_N, len(classes), learning_rate)
        return lambda x_nD: classes[np.argmax(_with_ones(x_nD) @ weights, axis=1)]

    return _probe(train, validation, test, sorted(learning_rates), fit)


def sgd(x_ND: Matrix, targets_N: Labels, classes: int, learning_rate: float, epochs: int = EPOCHS) -> Matrix:
    """(D + 1) x C weights, the biases in the last row; see `sgd_probe`."""
    x, hot = _with_ones(x_ND), np.eye(classes)[targets_N]
    weights = np.zeros((x.shape[1], classes))
    velocity = np.zeros_like(weights)
    for epoch in range(epochs):
        rate = learning_rate * STEP_DOWN ** sum(100 * epoch >= at * epochs for at in STEPS_DOWN_AT)
        for chosen in np.split(epoch_order(len(x), epoch), range(BATCH, len(x), BATCH)):
            logits = x[chosen] @ weights
            likely = np.exp(logits - logits.max(axis=1, keepdims=True))
            likely /= likely.sum(axis=1, keepdims=True)
            velocity = MOMENTUM * velocity + x[chosen].T @ (likely - hot[chosen]) / len(chosen)
            weights -= rate * velocity
    return weights


def epoch_order(count: int, epoch: int, seed: int = 0) -> Labels:
    """A permutation of `count` indices, the same in every version of numpy."""
    return np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(count), kind="stable").astype(np.int64)


def _with_ones(x_ND: Matrix) -> Matrix:
    return np.hstack([x_ND, np.ones((len(x_ND), 1))])


def _probe(
    train: Features,
    validation: Features,
    test: Features,
    grid: Sequence[float],
    fit: Callable[[Matrix, Labels, float], Classifier],
) -> LinearScore:
    """`grid`: in the order of preference for ties."""
    scaler = StandardScaler().fit(train.values.astype(np.float64))

    def scaled(features: Features) -> Matrix:
        return scaler.transform(features.values.astype(np.float64))

    def hits(predict: Classifier, features: Features) -> NDArray[np.bool_]:
        return np.asarray(predict(scaled(features)) == features.labels)

    with threadpool_limits(1):  # a fixed order of summation on every machine
        x_ND = scaled(train)
        if len(validation.labels) == 0:
            grid = [grid[len(grid) // 2]]
        models = [fit(x_ND, train.labels, value) for value in grid]
        best = 0 if len(grid) == 1 else int(np.argmax([np.mean(hits(model, validation)) for model in models]))
        return LinearScore(hits(models[best], test), grid[best])
