"""The kernel distance against torch-fidelity; its interval against the jackknife taken literally."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kernel_mmd

from adainf.quality import pairwise
from adainf.quality.kernel import kernel_distance

CPU = torch.device("cpu")
KID = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1.0}


def two_sets(count: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(2, count, 12)).astype(np.float32)
    return x, y + np.float32(shift)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_same_as_torch_fidelity(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_BLOCK_BYTES", 8 * 12 * 37)  # blocks that do not divide the sets
    x, y = two_sets(200, shift)
    theirs = kernel_mmd(x.astype(np.float64), y.astype(np.float64), **KID)
    assert kernel_distance(x, y, CPU).value == pytest.approx(theirs, rel=1e-6)


def test_interval_is_the_jackknifes() -> None:
    x, y = two_sets(40, 0.5)
    found = kernel_distance(x, y, CPU)
    without = [kernel_mmd(*(np.delete(z.astype(np.float64), i, 0) for z in (x, y)), **KID) for i in range(40)]
    error = np.sqrt(39 / 40 * np.square(without - np.mean(without)).sum())
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 2.042 * error, rel=1e-6)
    assert (found.high + found.low) / 2 == pytest.approx(found.value)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Nearly always where there is no difference; about 95 times of 100 where there is one."""
    same = [kernel_distance(*two_sets(60, 0.0, seed), CPU) for seed in range(100)]
    assert sum(e.low <= 0 <= e.high for e in same if e.low is not None and e.high is not None) >= 95
    truth = np.mean([kernel_distance(*two_sets(500, 0.5, seed), CPU).value for seed in range(40)])
    apart = [kernel_distance(*two_sets(60, 0.5, seed), CPU) for seed in range(100, 200)]
    assert 88 <= sum(e.low <= truth <= e.high for e in apart if e.low is not None and e.high is not None) <= 100
