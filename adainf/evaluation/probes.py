"""The linear probe and nearest neighbours, by scikit-learn: its solvers are the reference that others compare with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


class Labelled(NamedTuple):
    """Features N x D and their labels N."""

    features: Features
    labels: Labels


class LinearScore(NamedTuple):
    accuracy: float
    l2: float
    """The penalty that the validation split chose."""


def linear_probe(train: Labelled, validation: Labelled, test: Labelled, l2_grid: tuple[float, ...]) -> LinearScore:
    """Test accuracy, 0..1, of multinomial logistic regression on standardised features, fitted on `train`.

    `l2_grid`: penalties l in mean cross entropy + l / 2 |W|^2; the one with the best accuracy on `validation` counts
    (the strongest of equals; the middle one where there is no validation split). `test` is read once, at the end.
    """
    scaler = StandardScaler().fit(train.features.astype(np.float64))

    def fitted(l2: float) -> LogisticRegression:
        model = LogisticRegression(C=1 / (l2 * len(train.labels)), max_iter=2000)
        return model.fit(scaler.transform(train.features.astype(np.float64)), train.labels)

    def accuracy(model: LogisticRegression, data: Labelled) -> float:
        return float(np.mean(model.predict(scaler.transform(data.features.astype(np.float64))) == data.labels))

    with threadpool_limits(1):  # sums in one order, whatever the machine
        grid = sorted(l2_grid, reverse=True)
        if len(validation.labels) == 0:
            grid = [grid[len(grid) // 2]]
        models = [fitted(l2) for l2 in grid]
        best = 0 if len(grid) == 1 else int(np.argmax([accuracy(model, validation) for model in models]))
        return LinearScore(accuracy(models[best], test), grid[best])


def knn_accuracy(train: Labelled, test: Labelled, neighbours: int) -> float:
    """Test accuracy, 0..1, of a plain vote of the `neighbours` nearest training images by cosine distance."""
    with threadpool_limits(1):
        model = KNeighborsClassifier(min(neighbours, len(train.labels)), metric="cosine", algorithm="brute")
        model.fit(train.features, train.labels)
        return float(np.mean(model.predict(test.features) == test.labels))
