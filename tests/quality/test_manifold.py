"""Neighbours against scikit-learn, the four numbers against prdc, realism against a loop."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from sklearn.neighbors import NearestNeighbors

from adainf.quality import pairwise
from adainf.quality.manifold import Manifold, overlap
from adainf.quality.pairwise import nearest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some twenty rows at once, which do not divide the sets."""
    monkeypatch.setattr(pairwise, "_BLOCK_BYTES", 8 * 10 * 23)


def cloud(seed: int, count: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(count, 10)) + shift).astype(np.float32)


def test_nearest_are_scikit_learns() -> None:
    queries, targets = cloud(0, 61), cloud(1, 130)
    distances, indices = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(targets.astype(np.float64)).kneighbors(queries)
    found = nearest(queries, targets, 4, CPU)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    np.testing.assert_array_equal(found.indices, indices)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.3), (1.5, 0.0), (1.0, 2.0)])
def test_same_as_prdc(scale: float, shift: float) -> None:
    real, generated = cloud(0, 300), cloud(1, 250, scale, shift)
    theirs = compute_prdc(real.astype(np.float64), generated.astype(np.float64), nearest_k=5)
    assert overlap(Manifold(real, 5, CPU), Manifold(generated, 5, CPU))._asdict() == pytest.approx(theirs, abs=1e-6)


def test_realism_is_the_largest_ratio_over_the_smaller_half_of_the_balls() -> None:
    real, queries = cloud(0, 80), cloud(1, 30)
    radii = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 3]
    expected = [
        max(radii[i] / np.linalg.norm(query - real[i]) for i in range(80) if radii[i] <= np.median(radii)) for query in queries
    ]
    np.testing.assert_allclose(Manifold(real, 3, CPU).realism(queries), expected, rtol=1e-5)


def test_a_copy_is_more_realistic_than_anything_else() -> None:
    real = cloud(0, 80)
    manifold = Manifold(real, 3, CPU)
    small = real[manifold.radii_N <= np.median(manifold.radii_N)][:1]
    found = manifold.realism(np.concatenate([cloud(1, 30), small]))
    assert np.isfinite(found).all()
    assert np.argmax(found) == 30


MEASURED = """
import resource, sys
import numpy as np, torch
from adainf.quality.manifold import Manifold, overlap
torch.set_num_threads(1)
real, generated = np.random.default_rng(0).normal(size=(2, 8_000, 64)).astype(np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
overlap(Manifold(real, 5, torch.device("cpu")), Manifold(generated, 5, torch.device("cpu")))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_does_not_grow_with_the_square_of_the_sets() -> None:
    """All distances at once would be 490 MiB, and more with what is made of them; a block is 64 MiB."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250
