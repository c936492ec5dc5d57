"""Classifier two-sample test: the accuracy of separating generated from real images bounds their total variation distance."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from adainf.evaluation.intervals import wilson_interval
from adainf.quality.pairwise import Features
from adainf.quality.record import Estimate

FOLDS = 5
L2 = 1e-2
"""Penalty per image, the same as in `evaluate`."""


def balanced_accuracy(real_ND: Features, generated_ND: Features) -> Estimate:
    """Cross-validated accuracy of logistic regression on standardised features, with Wilson's 95 % interval; 0.5 is chance
    (the two-sample test of Lopez-Paz and Oquab 2017).

    Both sets have the same number of rows, so plain accuracy is balanced. Image i is in fold i mod 5 and is scored by the
    classifier that was fitted on the other folds.
    """
    count = len(real_ND)
    x = np.concatenate([real_ND, generated_ND]).astype(np.float64)
    generated, fold = np.repeat([False, True], count), np.tile(np.arange(count) % FOLDS, 2)
    correct = np.zeros(2 * count, bool)
    with threadpool_limits(1):  # a fixed order of summation on every machine
        for left_out in np.unique(fold):
            train, test = fold != left_out, fold == left_out
            model = LogisticRegression(C=1 / (L2 * np.count_nonzero(train)), max_iter=2000)
            classifier = make_pipeline(StandardScaler(), model).fit(x[train], generated[train])
            correct[test] = classifier.predict(x[test]) == generated[test]
    accuracy = float(np.mean(correct))
    return Estimate(accuracy, *wilson_interval(accuracy, 2 * count))


def total_variation(accuracy: Estimate) -> float:
    """Lower bound of the total variation distance between the two sets' distributions, 0..1, at 97.5 % confidence.

    For any set A of images that a classifier labels generated, its balanced accuracy is (G(A) + 1 - R(A)) / 2 ≤ (1 + TV) / 2.
    """
    assert accuracy.low is not None
    return max(2 * accuracy.low - 1, 0.0)
