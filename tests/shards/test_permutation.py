"""The computed permutation is a bijection, differs by key, and looks random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.shards.loader.permutation import mix, permute


def permutation(count: int, key: int) -> np.ndarray:
    return permute(np.arange(count), count, np.full(count, key, np.uint64))


@given(count=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_every_element_appears_once(count: int, key: int) -> None:
    assert sorted(permutation(count, key)) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 63, 64, 65, 4095, 4096, 4097])
def test_at_the_edges_of_the_domains(count: int) -> None:
    assert sorted(permutation(count, 1)) == list(range(count))


def test_random_access_with_a_key_per_element() -> None:
    one, two = permutation(1000, 1), permutation(1000, 2)
    index = np.array([5, 999, 5, 0])
    mixed = permute(index, 1000, np.array([1, 2, 2, 1], np.uint64))
    np.testing.assert_array_equal(mixed, [one[5], two[999], two[5], one[0]])


def test_large_counts_cost_no_memory() -> None:
    count = 10**11
    index = np.random.default_rng(0).integers(0, count, 1000)
    found = permute(index, count, np.zeros(1000, np.uint64))
    assert len(np.unique(found)) == len(np.unique(index))
    assert found.min() >= 0
    assert found.max() < count


def test_it_looks_random() -> None:
    """Compared with a uniform permutation: fixed points, neighbours that stay neighbours, and the image of each position."""
    count, keys = 256, 400
    images = np.stack([permutation(count, int(mix(np.array([key], np.uint64))[0])) for key in range(keys)])
    assert abs((images == np.arange(count)).sum() / keys - 1) < 0.25  # one fixed point a permutation
    assert abs((np.diff(images, axis=1) == 1).sum() / keys - 1) < 0.25  # and one ascending pair of neighbours
    cells = np.zeros((16, 16))
    np.add.at(cells, (np.broadcast_to(np.arange(count) // 16, images.shape), images // 16), 1)
    expected = keys * count / 256
    chi_squared = ((cells - expected) ** 2 / expected).sum()
    assert chi_squared < 225 + 5 * (2 * 225) ** 0.5  # 15 x 15 degrees of freedom, five deviations
