"""A windowed pass is a pass: every image once, each window's images only from its shards, and well shuffled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.shards.loader.mixture import MixtureSchedule
from adainf.shards.loader.windows import Windows

SHARDS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(shards=SHARDS, window=st.integers(1, 14), seed=st.integers(0, 2**32 - 1), passes=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_every_image_appears_once_from_a_shard_of_its_window(shards: list[int], window: int, seed: int, passes: int) -> None:
    count = sum(shards)
    schedule = MixtureSchedule([count], [1.0], seed, [Windows(np.array(shards), window)])
    first = passes * count
    _, images = schedule.at(np.arange(first, first + count))
    assert sorted(images) == list(range(count))
    owner = np.repeat(np.arange(len(shards)), shards)
    draw, seen = first, []
    while draw < first + count:
        there = schedule.window(0, draw)
        assert min(window, len(shards)) <= len(there.shards) < 2 * window or len(there.shards) == len(shards) < 2 * window
        assert sorted(owner[images[draw - first : there.end - first]]) == sorted(
            np.repeat(there.shards, np.array(shards)[there.shards])
        )
        seen += there.shards.tolist()
        draw = there.end
    assert sorted(seen) == list(range(len(shards)))


def test_every_pass_has_other_windows() -> None:
    schedule = MixtureSchedule([100], [1.0], 0, [Windows(np.full(20, 5), 4)])
    windows = {tuple(sorted(schedule.window(0, 100 * n).shards)) for n in range(20)}
    assert len(windows) > 10


def test_random_access_to_one_position() -> None:
    windows = [Windows(np.full(20, 5), 4), Windows(np.full(30, 5), 7)]
    schedule = MixtureSchedule([100, 150], [3.0, 1.0], 5, windows)
    sources, images = schedule.at(np.arange(900, 1800))
    for position in (0, 1, 450, 899):
        source, image = schedule.at(np.array([900 + position]))
        assert (source[0], image[0]) == (sources[position], images[position])


@pytest.mark.parametrize("position", [0, 1, 17, 300, 10**9, 10**12])
def test_drawn_counts_the_images_before_a_position(position: int) -> None:
    schedule = MixtureSchedule([30, 600, 50], [10.0, 1.0, 2.5], 0)
    drawn = schedule.drawn(position)
    assert sum(drawn) == position
    before = np.arange(max(0, position - 5000), position)
    counted = np.bincount(schedule.at(before)[0], minlength=3) if len(before) else np.zeros(3)
    start = schedule.drawn(int(before[0])) if len(before) else [0, 0, 0]
    assert [a - b for a, b in zip(drawn, start, strict=True)] == counted.tolist()


@pytest.mark.parametrize(("window", "most"), [(None, 1.1), (32, 3.5)])
def test_two_images_of_a_batch_seldom_share_a_shard(window: int | None, most: float) -> None:
    """100 shards of 1000, batches of 512, against uniform sampling without replacement; webdataset's shuffle(1000) gives 37."""
    windows = None if window is None else [Windows(np.full(100, 1000), window)]
    schedule = MixtureSchedule([100_000], [1.0], 3, windows)
    shares = []
    for step in range(195):
        counts = np.bincount(schedule.at(np.arange(512 * step, 512 * step + 512))[1] // 1000, minlength=100)
        shares.append((counts * (counts - 1)).sum() / (512 * 511))
    assert np.mean(shares) / (999 / 99_999) < most
