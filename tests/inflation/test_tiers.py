"""Tiers are found where shards differ, and not where they differ by chance."""

from __future__ import annotations

import numpy as np
import pytest

from adainf.inflation.tiers import Tier, tiers
from adainf.inflation.worth import Measured, quality, refusal
from adainf.quality.record import ShardScores

IMAGES = 100


def measured(true: list[float], seed: int, images: list[int] | None = None) -> ShardScores:
    """Shards of these true coverages, each measured twice on as many of `IMAGES` balls."""
    draws = np.random.default_rng(seed).binomial(IMAGES, np.array(true)[:, None], (len(true), 2)) / IMAGES
    empty = {"ssl": [0.0] * len(true)}
    halves = {"ssl": [(float(one), float(other)) for one, other in draws]}
    return ShardScores(images=images or [50] * len(true), fd=empty, coverage=empty, coverage_halves=halves)


@pytest.mark.parametrize(("shards", "most"), [(4, 2), (8, 3), (20, 4), (60, 2)])
def test_shards_of_one_generator_are_one_tier(shards: int, most: int) -> None:
    """Neighbours are told apart by luck in one case of forty; ranked and judged by the same images, nearly always."""
    found = sum(len(tiers(measured([0.6] * shards, seed), "ssl", most)) > 1 for seed in range(400))
    assert found <= 400 * (0.025 * (most - 1) + 0.03)


def test_two_kinds_of_shards_are_two_tiers_however_many_are_asked_for() -> None:
    true = [0.8, 0.3, 0.8, 0.8, 0.3, 0.3, 0.8, 0.3, 0.8, 0.3]
    for most in (4, 5):
        best, worst = tiers(measured(true, seed=1), "ssl", most)
        assert (best.shards, worst.shards) == ([0, 2, 3, 6, 8], [1, 4, 5, 7, 9])
        assert (best.ratio, worst.ratio) == pytest.approx((0.8 / 0.55, 0.3 / 0.55), abs=0.1)


def test_a_tier_is_as_good_as_fresh_images_say() -> None:
    """Would catch a tier that is judged by what ranked it: those are above what is true by some hundredths, always."""
    true = np.linspace(0.35, 0.75, 40)
    errors = []
    for seed in range(200):
        for one in tiers(measured(true.tolist(), seed), "ssl", 4)[:1]:
            errors.append(one.ratio - true[one.shards].mean() / true.mean())
    assert abs(np.mean(errors)) < 0.01


def test_the_tiers_are_worth_what_the_whole_is() -> None:
    found = tiers(measured([0.8] * 6 + [0.4] * 3, seed=2), "ssl", 2)
    assert sorted(shard for tier in found for shard in tier.shards) == list(range(9))
    assert sum(len(tier.shards) * tier.ratio for tier in found) == pytest.approx(9)


def test_a_short_shard_is_not_ranked() -> None:
    """It covers less for that alone."""
    found = tiers(measured([0.8] * 5 + [0.05], seed=3, images=[50] * 5 + [4]), "ssl", 2)
    assert found == [Tier([0, 1, 2, 3, 4, 5], 1.0)]


@pytest.mark.parametrize("true", [[0.8], [0.8, 0.1], [0.8, 0.8, 0.1], [0.0] * 8])
def test_too_few_shards_or_nothing_covered_are_one_tier(true: list[float]) -> None:
    assert tiers(measured(true, seed=4), "ssl", 3) == [Tier(list(range(len(true))), 1.0)]


def test_a_tier_of_noise_is_refused_where_the_whole_is_not() -> None:
    whole = Measured(coverage=0.5, coverage_null=0.9, total_variation=0.5, total_variation_null=0.0, fid=10)
    assert refusal(whole) is None
    worst = whole.scaled(0.1)
    assert refusal(worst) is not None
    assert refusal(whole.scaled(0.0)) is not None
    found, of_all = quality(whole.scaled(1.5)), quality(whole)
    assert found is not None
    assert of_all is not None
    assert found[0] == pytest.approx(1.5 * of_all[0])
