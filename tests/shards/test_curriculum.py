"""A change of the mixture during training: exact, the same on every rank, resumable, and refused where it is invalid."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.errors import BadInput
from adainf.shards import Batch, Source, Stream, open_stream
from adainf.shards.loader.device import DeviceStream
from adainf.shards.loader.mixture import MixtureSchedule
from tests.shards.sets import Made, make_set

BATCH, STEPS = 24, 40
COUNTS = {"a": 30, "b": 60, "c": 45}


@pytest.fixture(autouse=True)
def _short_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """8192 positions are hundreds of windows of these small sets."""
    monkeypatch.setattr("adainf.shards.loader.planner._PLANNED", 200)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make_set(f"{folder}/{name}", count, 5, seed=n) for n, (name, count) in enumerate(COUNTS.items())}


def opened(sets: dict[str, Made], **options: Any) -> Stream:
    return open_stream({"a": Source(sets["a"].uri, 3), "b": sets["b"].uri}, BATCH, 0, **options)


def run(stream: Stream, sets: dict[str, Made], steps: int = STEPS) -> list[Batch]:
    """The batches up to that step, with three changes: of weights, by a source, and without a source."""
    batches = []
    for step in range(stream.state_dict()["step"], steps):  # type: ignore[arg-type]
        if step == 7:
            stream.continue_with(weights={"b": 2})
        if step == 15:
            stream.continue_with(sources={"c": Source(sets["c"].uri, share=Fraction(1, 4))})
        if step == 26:
            stream.continue_with(weights={"a": 0})
        batches.append(next(stream))
    return batches


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.step == b.step
        for x, y in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("window_shards", [None, 2])
def test_every_pass_of_every_source_stays_complete(sets: dict[str, Made], window_shards: int | None) -> None:
    with opened(sets, window_shards=window_shards) as stream:
        batches = run(stream, sets)
        drawn = stream.drawn(STEPS)
    sources = np.concatenate([batch.sources for batch in batches])
    indices = np.concatenate([batch.indices for batch in batches])
    assert drawn == np.bincount(sources, minlength=3).tolist()
    for number, count in enumerate(COUNTS.values()):
        mine = indices[sources == number]
        for start in range(0, len(mine), count):
            assert max(Counter(mine[start : start + count].tolist()).values()) == 1
    for batch in batches:
        for number, index, image in zip(batch.sources, batch.indices, batch.images, strict=True):
            assert (image == list(sets.values())[number].images[index]).all()
    shares = [np.bincount(batch.sources, minlength=3) / BATCH for batch in batches]
    for steps, share in ((slice(0, 7), [0.6, 0.4, 0]), (slice(7, 15), [3 / 7, 4 / 7, 0]), (slice(26, 40), [0, None, None])):
        for found in shares[steps]:
            assert all(want is None or abs(one - want) * BATCH < 1 for one, want in zip(found, share, strict=True))
    assert all(abs(found[2] - 0.25) * BATCH < 1 for found in shares[15:26])


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("world", [2, 4])
def test_the_batches_are_the_same_on_any_number_of_ranks(sets: dict[str, Made], world: int, window_shards: int | None) -> None:
    with opened(sets, window_shards=window_shards) as stream:
        whole = run(stream, sets)
    parts = []
    for rank in range(world):
        with opened(sets, rank=rank, world=world, window_shards=window_shards) as stream:
            parts.append(run(stream, sets))
    for batch, *slices in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch.images, np.concatenate([np.asarray(part.images) for part in slices]))
        np.testing.assert_array_equal(batch.indices, np.concatenate([part.indices for part in slices]))


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("step", [3, 7, 8, 15, 26, 33])
def test_it_resumes_before_and_after_a_change(sets: dict[str, Made], step: int, window_shards: int | None) -> None:
    with opened(sets, window_shards=window_shards) as stream:
        run(stream, sets, step)
        state = json.loads(json.dumps(stream.state_dict()))
    assert ("changes" in state) == (step > 7)
    with opened(sets, window_shards=window_shards) as stream:
        expected = run(stream, sets)[step:]
    with opened(sets, window_shards=window_shards) as stream:
        next(stream)
        assert stream.load_state_dict(state) == step
        assert_equal(run(stream, sets), expected)


@pytest.mark.parametrize("window_shards", [None, 2])
def test_a_stream_goes_back_to_a_state_before_its_changes(sets: dict[str, Made], window_shards: int | None) -> None:
    with opened(sets, window_shards=window_shards) as stream:
        expected = run(stream, sets, 3)
        state = stream.state_dict()
        expected += run(stream, sets)
        stream.load_state_dict(state)
        assert_equal(run(stream, sets, 12), expected[3:12])
    with opened(sets, window_shards=window_shards) as stream:
        stream.continue_with(sources={"c": sets["c"].uri})
        stream.load_state_dict(state)
        with pytest.raises(BadInput, match="other added sources than the state; open another stream"):
            stream.continue_with(sources={"d": sets["b"].uri})


def test_a_change_may_be_announced_and_the_stream_may_go_back(sets: dict[str, Made]) -> None:
    with opened(sets) as stream:
        expected = run(stream, sets)
        stream.seek(0)
        assert_equal([next(stream) for _ in range(STEPS)], expected)
    with opened(sets) as stream:
        stream.continue_with(weights={"b": 2}, step=7)
        stream.continue_with(sources={"c": Source(sets["c"].uri, share=Fraction(1, 4))}, step=15)
        stream.continue_with(weights={"a": 0}, step=26)
        assert stream.shares == {"a": Fraction(3, 5), "b": Fraction(2, 5)}
        assert_equal([next(stream) for _ in range(STEPS)], expected)
        assert stream.shares.keys() == {"b", "c"}


def test_shares_change_and_a_source_returns_where_it_was(sets: dict[str, Made]) -> None:
    with opened(sets) as stream:
        stream.continue_with(shares={"a": 0.5}, step=2)
        stream.continue_with(weights={"b": 0}, step=4)
        stream.continue_with(weights={"b": 1, "a": 1}, step=6)
        assert stream.drawn(6)[1] == stream.drawn(4)[1]
        indices = [batch.indices[batch.sources == 1] for batch, _ in zip(stream, range(12), strict=False)]
        assert stream.drawn(4)[0] - stream.drawn(2)[0] == BATCH
        assert len(set(np.concatenate(indices)[: COUNTS["b"]].tolist())) == COUNTS["b"]


@given(
    mixtures=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 9), min_size=5, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_mixtures_continues_every_source(mixtures: list[list[int]], steps: list[int]) -> None:
    """Against a plain loop that counts the images of each source."""
    counts, batch = [7, 12, 5, 9], 10
    schedule = MixtureSchedule(counts, mixtures[0], 3, global_batch=batch)
    first = 0
    for weights, more in zip(mixtures[1:], steps, strict=False):
        first += more * batch
        schedule = MixtureSchedule(counts, weights, 3, global_batch=batch, earlier=schedule, first=first)
    sources, images = schedule.at(np.arange(first + 200))
    drawn = [0] * 4
    for position, source in enumerate(sources.tolist()):
        if position % 17 == 0:
            assert schedule.drawn(position) == drawn
        drawn[source] += 1
    for number in range(4):  # the images of each source are those that it gives alone
        alone = MixtureSchedule(counts, np.eye(4, dtype=int)[number].tolist(), 3)
        np.testing.assert_array_equal(images[sources == number], alone.at(np.arange(drawn[number]))[1])


@pytest.mark.parametrize("left_out", [{"weights": {"a": 0}}, {"shares": {"a": 0}}])
def test_zero_leaves_a_source_out(sets: dict[str, Made], left_out: dict[str, Any]) -> None:
    with opened(sets) as stream:
        stream.continue_with(**left_out, step=np.int64(1))  # type: ignore[arg-type]
        stream.seek(np.int64(1))  # type: ignore[arg-type]
        assert stream.shares == {"b": 1}
        assert set(next(stream).sources.tolist()) == {1}
        json.dumps(stream.state_dict())


def test_the_weights_of_a_state_are_those_that_were_used(sets: dict[str, Made]) -> None:
    """Also fractions that are decimals, and whose denominators exceed those of floats."""
    weights = {"a": Fraction("0.851151160"), "b": Fraction("3.954778917"), "c": Fraction("1.00780964")}
    with opened(sets) as stream, opened(sets) as resumed:
        stream.continue_with(sources={"c": Source(sets["c"].uri, weights.pop("c"))}, weights=weights)
        resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        assert resumed.shares == stream.shares


def test_thousands_of_changes_and_the_way_back(sets: dict[str, Made]) -> None:
    """A schedule of weights changes them every few steps."""
    counts, steps = [30, 60], 1500
    mixture = first = MixtureSchedule(counts, [3, 1], 0, global_batch=BATCH)
    for step in range(1, steps):
        mixture = replace(mixture, weights=[3, 1 + step % 5], earlier=mixture, first=step * BATCH)
    positions = np.arange(steps * BATCH)
    sources, images = mixture.at(positions)
    np.testing.assert_array_equal(images[:BATCH], first.at(positions[:BATCH])[1])
    assert mixture.drawn(0) == [0, 0]
    assert mixture.drawn(steps * BATCH) == np.bincount(sources).tolist()
    assert mixture.active(0) == [0, 1]


@pytest.mark.parametrize("resident", [False, True])
def test_on_a_device(sets: dict[str, Made], resident: bool) -> None:
    def batches() -> Iterator[Any]:
        with opened(sets) as stream:
            on_device = DeviceStream(stream, torch.device("cpu"), resident)
            for step in range(10):
                if step == 4:
                    on_device.continue_with(weights={"b": 2}, sources={"c": sets["c"].uri})
                yield next(on_device)

    with opened(sets) as stream:
        stream.continue_with(weights={"b": 2}, sources={"c": sets["c"].uri}, step=4)
        for given_, expected in zip(batches(), stream, strict=False):
            assert torch.equal(given_.images_BHWC, torch.from_numpy(np.asarray(expected.images)))


# ------------------------------------------------------------------------------------------------------------- bad input


def test_invalid_changes_are_refused_and_the_stream_stays(sets: dict[str, Made], tmp_path: Path) -> None:
    larger = make_set(f"{tmp_path}/larger", 10, 5, size_px=6).uri
    cases: list[tuple[dict[str, Any], str]] = [
        ({"weights": {"x": 1}}, "no source x in this stream of a, b; add it by sources="),
        ({"sources": {"a": sets["c"].uri}}, "source a is part of the stream; change it by weights="),
        ({"sources": [sets["c"].uri]}, "give a dict of NAME"),
        ({"sources": {"c": f"{tmp_path}/none"}}, "manifest.json does not exist"),
        ({"sources": {"c": larger}}, "images of source c have another size than those of the stream; set size_px"),
        ({"weights": ["a"]}, r"weights is \['a'\]; give a dict of NAME: NUMBER"),
        ({"shares": 0.5}, "shares is 0.5; give a dict of NAME: NUMBER"),
        ({"weights": {"a": -1}}, "source a has weight -1"),
        ({"weights": {"a": "2"}}, "source a has weight '2'"),
        ({"weights": {"a": 0, "b": 0}}, "no source has both images and weight"),
        ({"weights": {"a": True}}, "source a has weight True"),
        ({"weights": {"a": np.complex64(1)}}, "source a has weight"),
        ({"sources": {3: sets["c"].uri}}, "a source has the name 3; give it a string"),
        ({"sources": {"": sets["c"].uri}}, "a source has the name ''; give it a string"),
        ({"weights": {"a": 1}, "step": True}, "a change at step True is invalid"),
        ({"shares": {"a": 1.5}}, "source a has share 1.5"),
        ({"shares": {"a": 1}}, "the shares of a sum to 1"),
        ({"shares": {"a": 0.5}, "weights": {"a": 2}}, "source a has weight 2 and share 0.5"),
        ({"weights": {"a": 1}, "step": 1}, "a change at step 1 is invalid; give the next step, 2, or a later one"),
        ({"weights": {"a": 1}, "step": 2.5}, "a change at step 2.5 is invalid"),
    ]
    with opened(sets) as stream, opened(sets) as other:
        for _ in range(2):
            next(stream)
        for change, said in cases:
            with pytest.raises(BadInput, match=said):
                stream.continue_with(**change)
        other.seek(2)
        assert stream.state_dict() == other.state_dict()
        assert_equal([next(stream)], [next(other)])
        stream.continue_with(weights={"a": 1}, step=9)
        with pytest.raises(BadInput, match="the mixture changes at step 9 already; give a step from there on, not 5"):
            stream.continue_with(weights={"a": 2}, step=5)


def test_a_state_whose_changes_do_not_fit_is_refused(sets: dict[str, Made], tmp_path: Path) -> None:
    added = make_set(f"{tmp_path}/added", 20, 5, seed=8)
    with opened(sets) as stream:
        stream.continue_with(sources={"c": added.uri})
        state = stream.state_dict()
    (change,) = cast(list[Any], state["changes"])
    invalid: Any
    for invalid in ("x", [3], [{}], [{**change, "step": -1}], [{**change, "weights": {"a": "1/0"}}]):
        with opened(sets) as stream, pytest.raises(BadInput, match="the changes of the saved position are corrupt"):
            stream.load_state_dict({**state, "changes": invalid})
    with opened(sets) as stream, pytest.raises(BadInput, match="weighs z, which is no source"):
        stream.load_state_dict({**state, "changes": [{**change, "weights": {"z": 1.0}}]})
    for path in added.path.iterdir():
        path.unlink()
    make_set(f"{tmp_path}/added", 20, 5, seed=9)
    with opened(sets) as stream, pytest.raises(BadInput, match=r"source c, .*added, has changed since the position was saved"):
        stream.load_state_dict(state)


def test_a_rank_without_the_change_is_detected(sets: dict[str, Made]) -> None:
    with opened(sets, rank=0, world=2) as one, opened(sets, rank=1, world=2) as two:
        one.continue_with(weights={"b": 2}, step=5)
        hashes = [stream._hash(0, rank) for rank, stream in enumerate((one, two))]
        with pytest.raises(BadInput, match=r"ranks \[1\] have other images than planned"):
            one.check(0, *one.plan(0), lambda own: [own, hashes[1]])
