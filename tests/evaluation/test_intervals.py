"""The confidence intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from adainf.evaluation.intervals import student_interval, wilson_interval
from adainf.evaluation.scores import Measure


@pytest.mark.parametrize(("right", "images"), [(0, 10), (10, 10), (347, 359), (9342, 10_000), (1, 1)])
def test_wilson_interval(right: int, images: int) -> None:
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / images, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_student_interval() -> None:
    values = [0.91, 0.93, 0.95, 0.92]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert student_interval(values) == pytest.approx(expected, abs=1e-4)
    assert student_interval([0.5, 1.0]).high == 1.0, "no accuracy above all"


def test_a_measure_describes_itself() -> None:
    one = Measure.of("knn-weighted", np.arange(400) < 360, 3, {"neighbours": 200, "temperature": 0.1})
    assert (one.split, one.seed, one.images) == ("test", 3, 400)
    assert one.interval == pytest.approx(wilson_interval(0.9, 400), abs=1e-6)
    assert one.title == "kNN, k = 200, weighted by exp(cos / 0.1)"
    assert Measure.model_validate_json(one.to_json()) == one
