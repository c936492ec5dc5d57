"""The published words of Philox4x32-10, and numbers that are uniform and independent whatever of their address changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adainf.augment.philox import philox, uniform

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_published_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """Of the authors' Random123 (`kat_vectors`)."""
    words = tuple(torch.tensor([word]) for word in counter)
    assert tuple(philox(words, key)[0].tolist()) == expected  # type: ignore[arg-type]


def test_every_part_of_the_address_gives_other_numbers() -> None:
    identity = torch.tensor([5])
    addresses = [(5, 1, 2, 0), (6, 1, 2, 0), (5 + (1 << 40), 1, 2, 0), (5, 2, 2, 0), (5, 1 + (1 << 32), 2, 0), (5, 1, 3, 0)]
    drawn = [uniform(identity * 0 + i, seed, step, view, 8) for i, seed, step, view in [*addresses, (5, 1, 2, 1)]]
    every = torch.cat(drawn).flatten()
    assert len(every.unique()) == len(every)
    torch.testing.assert_close(uniform(identity, 1, 2, 0, 8), drawn[0], rtol=0, atol=0)
    torch.testing.assert_close(uniform(identity, 1, 2, 0, 5), drawn[0][:, :5], rtol=0, atol=0)


def test_numbers_are_uniform() -> None:
    u = uniform(torch.arange(20_000), 3, 7, 1, 33).double().numpy()
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in u.T])
    chi_squared = ((counts - 1000) ** 2 / 1000).sum(1)
    assert chi_squared.mean() == pytest.approx(19, abs=4.3)  # 33 columns of 19 degrees of freedom: 4 deviations
    assert chi_squared.max() < 55


@pytest.mark.parametrize("changed", ["identity", "seed", "step", "view"])
def test_neighbours_are_independent(changed: str) -> None:
    ids = torch.arange(20_000)
    other = {"identity": (ids + 1, 3, 7, 1), "seed": (ids, 4, 7, 1), "step": (ids, 3, 8, 1), "view": (ids, 3, 7, 2)}[changed]
    a, b = uniform(ids, 3, 7, 1, 8).numpy(), uniform(*other, 8).numpy()
    correlation = np.corrcoef(np.concatenate([a, b], axis=1).T) - np.eye(16)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)
