"""The mixture is exact, independent of slicing, and a permutation in every pass."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.shards.loader.mixture import MixtureSchedule

MIXTURES = st.lists(st.tuples(st.integers(1, 200), st.sampled_from([0.0, 0.5, 1.0, 2.5, 10.0, 15.2])), min_size=1, max_size=4)


def positions(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.int64)


@given(mixture=MIXTURES, seed=st.integers(0, 2**32 - 1), first=st.integers(0, 10**12), count=st.integers(1, 700))
@settings(max_examples=100, deadline=None)
def test_any_interval_holds_each_source_in_its_share(mixture: list[Any], seed: int, first: int, count: int) -> None:
    counts, weights = [m[0] for m in mixture], [m[1] for m in mixture]
    if not any(weights):
        with pytest.raises(ValueError, match="no source"):
            MixtureSchedule(counts, weights, seed)
        return
    few = sum(weight > 0 for weight in weights) <= 2
    schedule = MixtureSchedule(counts, weights, seed, global_batch=1 if few else count)
    first -= 0 if few else first % count  # of more sources, any global batch
    sources, images = schedule.at(positions(first, count))
    for source, share in enumerate(schedule.shares):
        assert abs((sources == source).sum() - share * count) < 1
        assert ((images[sources == source] >= 0) & (images[sources == source] < counts[source])).all()


@given(
    mixture=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 1000)), min_size=2, max_size=10),
    batch=st.integers(1, 300),
    world=st.integers(1, 16),
    step=st.integers(0, 10**9),
)
@settings(max_examples=150, deadline=None)
def test_every_batch_and_every_rank_has_two_to_ten_sources_in_their_shares(
    mixture: list[tuple[int, int]], batch: int, world: int, step: int
) -> None:
    schedule = MixtureSchedule([m[0] for m in mixture], [m[1] for m in mixture], 0, global_batch=batch)
    first = step * batch
    sources, _ = schedule.at(positions(first, 3 * batch))
    for number, share in enumerate(schedule.shares):
        mine = sources == number
        for start in (0, batch, 2 * batch):
            assert abs(mine[start : start + batch].sum() - share * batch) < 1
            for rank in range(world):
                local = slice(start + batch * rank // world, start + batch * (rank + 1) // world)
                length = local.stop - local.start
                bound = 1 if len(mixture) == 2 else 2 + Fraction(length, batch)
                assert abs(mine[local].sum() - share * length) < bound
        assert schedule.drawn(first + 3 * batch)[number] - schedule.drawn(first)[number] == mine.sum()
        assert abs(schedule.drawn(first)[number] - share * first) < 6


def test_nearly_all_counts_on_few_ranks_are_within_1() -> None:
    """Of three to ten sources with random weights; integers only, so it is the same on every machine."""
    chance, batch = random.Random(0), 96
    beyond: list[bool] = []
    for sources in range(3, 11):
        schedule = MixtureSchedule([1] * sources, [chance.randint(1, 1000) for _ in range(sources)], 0, global_batch=batch)
        drawn, _ = schedule.at(positions(0, 20 * batch))
        for world in (2, 4, 8):
            local = batch // world
            for number, share in enumerate(schedule.shares):
                counts = (drawn == number).reshape(-1, local).sum(axis=1).tolist()
                beyond += [abs(count - share * local) > 1 for count in counts]
    assert sum(beyond) < len(beyond) / 500


@pytest.mark.parametrize("sources", [3, 7])
@pytest.mark.parametrize("batch", [1, 8, 96])
def test_three_or_more_sources_equal_a_plain_loop(sources: int, batch: int) -> None:
    """Every image of a pass once, in the order in which the positions draw them; a super-epoch exactly in its shares."""
    counts = list(range(5, 5 + sources))
    schedule = MixtureSchedule(counts, range(1, 1 + sources), 1, global_batch=batch)
    cycle = int(np.lcm.reduce([share.denominator for share in schedule.shares])) * batch
    found, images = schedule.at(positions(0, cycle))
    drawn = [0] * sources
    for position, (source, image) in enumerate(zip(found.tolist(), images.tolist(), strict=True)):
        if position % 97 == 0:
            assert schedule.drawn(position) == drawn
            alone = schedule.at(positions(position, 1))  # random access
            assert (int(alone[0][0]), int(alone[1][0])) == (source, image)
        drawn[source] += 1
    assert drawn == [share * cycle for share in schedule.shares]
    for source, count in enumerate(counts):
        passes = images[found == source]
        for n in range(len(passes) // count):
            assert sorted(passes[count * n : count * n + count]) == list(range(count))


def test_the_order_of_one_or_two_sources_is_that_of_earlier_versions() -> None:
    """Streams of existing runs resume: (source, image) of these positions as version 0.1 computes them."""
    schedule = MixtureSchedule([40, 800], [10.0, 1.0], 7, global_batch=48)
    sources, images = schedule.at(positions(1000, 12))
    assert sources.tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert images.tolist() == [636, 8, 392, 173, 24, 228, 756, 7, 517, 149, 33, 541]


@pytest.mark.parametrize(("weight", "real_share"), [(10.0, "1/3"), (1.0, "1/21")])
def test_cifar_shares_are_the_papers(weight: float, real_share: str) -> None:
    assert str(MixtureSchedule([50_000, 1_000_000], [weight, 1.0], 0).shares[0]) == real_share


def test_each_real_image_appears_ten_times_and_each_generated_once_per_super_epoch() -> None:
    schedule = MixtureSchedule([30, 600], [10.0, 1.0], seed=7)
    sources, images = schedule.at(positions(0, 30 * 10 + 600))
    assert (np.bincount(images[sources == 0], minlength=30) == 10).all()
    assert (np.bincount(images[sources == 1], minlength=600) == 1).all()


def test_every_pass_is_a_new_permutation() -> None:
    schedule = MixtureSchedule([50], [1.0], seed=1)
    passes = [schedule.at(positions(50 * n, 50))[1] for n in range(3)]
    for one in passes:
        assert sorted(one) == list(range(50))
    assert not (passes[0] == passes[1]).all()
    assert not (passes[1] == passes[2]).all()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_slices_of_the_batch_are_the_batch_and_each_holds_the_share(world: int) -> None:
    schedule = MixtureSchedule([100, 2000], [10.0, 1.0], seed=3)  # real share 1/3: a strided slice would alias here
    batch = 48
    for step in (0, 1, 10**9):
        batch_of_all = schedule.at(positions(step * batch, batch))
        local = batch // world
        parts = [schedule.at(positions(step * batch + r * local, local)) for r in range(world)]
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), batch_of_all[0])
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), batch_of_all[1])
        for sources, _ in parts:
            assert abs((sources == 0).sum() - local / 3) < 1


def test_positions_far_out_and_sets_of_billions_are_exact() -> None:
    """Compared with Python's integers: floor arithmetic must not overflow where the product exceeds 64 bits."""
    schedule = MixtureSchedule([999_999_937, 98_765_432_101 // 7], [10.0, 1.0], seed=5)
    first = 10**12 + 3
    sources, images = schedule.at(positions(first, 500))
    share = schedule.shares[0]
    expected = [0 if (t + 1) * share // 1 > t * share // 1 else 1 for t in range(first, first + 500)]
    assert sources.tolist() == expected
    assert (images < np.array(schedule.counts)[sources]).all()


def test_seeds_sources_and_passes_have_orders_of_their_own() -> None:
    orders = [MixtureSchedule([100, 100], [1.0, 1.0], seed).at(positions(0, 400)) for seed in (0, 1)]
    rows = [
        images[sources == source][100 * n : 100 * n + 100] for sources, images in orders for source in (0, 1) for n in (0, 1)
    ]
    assert len({tuple(row) for row in rows}) == 8


@pytest.mark.parametrize(
    ("weight", "used"),
    [
        (15.2, Fraction(76, 5)),
        (1 / 3, Fraction(1, 3)),
        (3001 / 503, Fraction(3001, 503)),
        (math.pi, Fraction(3126535, 995207)),
        (1e-9 / 3, Fraction(1, 3 * 10**9)),
        (Fraction(10**9 + 7, 10**9 + 9), Fraction(10**9 + 7, 10**9 + 9)),
        (np.float64(1 / 7), Fraction(1, 7)),
    ],
)
def test_a_weight_is_a_fraction_and_its_error_is_stated(weight: float | Fraction, used: Fraction) -> None:
    schedule = MixtureSchedule([40, 800], [weight, 1], 0)
    assert schedule.used.weights == (used, Fraction(1))
    exact = 40 * Fraction(str(weight)) / (40 * Fraction(str(weight)) + 800)
    assert schedule.used.error == float(abs(schedule.shares[0] - exact)) < 1e-9
    assert sum(schedule.shares) == 1
    cycle = schedule.shares[0].denominator
    assert schedule.drawn(cycle)[0] == schedule.shares[0].numerator


def test_a_share_beyond_64_bits_is_the_nearest_one() -> None:
    schedule = MixtureSchedule([10**9 + 7, 10**9 + 9], [Fraction(3123456789, 10**9), 1], 0)
    assert 0 < schedule.used.error < 2**-40
    with pytest.raises(ValueError, match="give a share below 2"):
        MixtureSchedule([1, 10**9], [1e-30, 1.0], 0)
