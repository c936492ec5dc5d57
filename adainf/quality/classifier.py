"""A classifier that tries to tell generated from real images: what it achieves bounds how far apart the two are."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from adainf.evaluation.intervals import wilson
from adainf.quality.pairs import Features
from adainf.quality.record import Estimate

FOLDS = 5
L2 = 1e-2
"""Penalty per image, as `evaluate` has it."""


def balanced_accuracy(real_ND: Features, generated_ND: Features) -> Estimate:
    """Of logistic regression on standardised features, cross-validated, with Wilson's 95 % interval; 0.5 is chance (the
    two-sample test of Lopez-Paz and Oquab 2017).

    Both sets have the same number of rows, which makes plain accuracy balanced. Image i is judged by the classifier that was
    fitted without every fifth image from it on.
    """
    count = len(real_ND)
    x = np.concatenate([real_ND, generated_ND]).astype(np.float64)
    generated, fold = np.repeat([False, True], count), np.tile(np.arange(count) % FOLDS, 2)
    right = np.zeros(2 * count, bool)
    with threadpool_limits(1):  # sums in one order, whatever the machine
        for left_out in np.unique(fold):
            train, test = fold != left_out, fold == left_out
            model = LogisticRegression(C=1 / (L2 * np.count_nonzero(train)), max_iter=2000)
            judge = make_pipeline(StandardScaler(), model).fit(x[train], generated[train])
            right[test] = judge.predict(x[test]) == generated[test]
    accuracy = float(np.mean(right))
    return Estimate(accuracy, *wilson(accuracy, 2 * count))


def total_variation(accuracy: Estimate) -> float:
    """Lower bound of the total variation distance of the two sets' distributions, 0..1, at 97.5 % confidence.

    Whatever set A of images a classifier calls generated, its balanced accuracy is (G(A) + 1 - R(A)) / 2 ≤ (1 + TV) / 2.
    """
    assert accuracy.low is not None
    return max(2 * accuracy.low - 1, 0.0)
