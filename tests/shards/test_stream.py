"""The stream is exact in shares, the same on any topology, resumes by arithmetic, and rejects invalid input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from adainf.errors import BadInput
from adainf.shards import Batch, Source, Stream, open_stream
from adainf.shards.loader.device import DeviceStream
from tests.shards.sets import Mixture, make_mixture, make_set, take

WORLDS = [1, 2, 3, 4, 5, 6, 7, 8, 12]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return make_mixture(str(tmp_path_factory.mktemp("sets")))


def ids(batches: list[Batch]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch.sources.tolist(), batch.indices.tolist(), strict=True)]


# ---------------------------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("window_shards", [None, 2])
def test_every_image_matches_its_index(mixture: Mixture, window_shards: int | None) -> None:
    batches = take(mixture.open(window_shards=window_shards), 60)
    assert all(mixture.holds(batch) for batch in batches)
    assert [batch.step for batch in batches] == list(range(60))


def test_a_set_on_s3_gives_the_same_batches(mixture: Mixture, s3_env: str) -> None:
    there = make_mixture(s3_env)
    for here, far in zip(take(mixture.open(), 4), take(there.open(), 4), strict=True):
        assert there.holds(far)
        np.testing.assert_array_equal(here.images, far.images)


@pytest.mark.parametrize("window_shards", [None, 3])
def test_a_super_epoch_has_each_real_image_ten_times_and_each_generated_one_once(
    mixture: Mixture, window_shards: int | None
) -> None:
    counts = Counter(ids(take(mixture.open(window_shards=window_shards), 1200 // 48)))
    assert {pair: n for pair, n in counts.items() if pair[0] == 0} == {(0, index): 10 for index in range(40)}
    assert {pair: n for pair, n in counts.items() if pair[0] == 1} == {(1, index): 1 for index in range(800)}


@pytest.mark.parametrize("global_batch", [1024, 1023])
def test_every_global_batch_and_every_rank_has_its_share(mixture: Mixture, global_batch: int) -> None:
    for world in WORLDS:
        with mixture.open(global_batch, rank=0, world=world) as stream:
            for step in (0, 1, 2, 10**9):
                real = [int((stream.plan(step, rank)[0] == 0).sum()) for rank in range(world)]
                sizes = [len(stream.plan(step, rank)[0]) for rank in range(world)]
                assert sum(real) in (global_batch // 3, global_batch // 3 + 1)
                assert sum(sizes) == global_batch
                assert max(sizes) - min(sizes) <= 1
                assert all(abs(count - size / 3) < 1 for count, size in zip(real, sizes, strict=True))


def test_a_mean_over_uneven_slices_is_that_of_the_batch(mixture: Mixture) -> None:
    values = np.random.default_rng(0).normal(size=47)
    weighted = []
    for rank in range(5):
        with mixture.open(47, rank=rank, world=5) as stream:
            weighted.append(stream.loss_weight * values[stream.slice].mean())
    assert np.mean(weighted) == pytest.approx(values.mean(), abs=1e-12)


# ------------------------------------------------------------------------------------------------------------- topologies


@pytest.mark.heavy
@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("world", [2, 3, 5, 7])
def test_slices_of_any_number_of_ranks_are_the_same_batches(mixture: Mixture, world: int, window_shards: int | None) -> None:
    whole = take(mixture.open(window_shards=window_shards), 6)
    parts = [take(mixture.open(rank=rank, world=world, window_shards=window_shards), 6) for rank in range(world)]
    for batch, *slices in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch.images, np.concatenate([part.images for part in slices]))
        np.testing.assert_array_equal(batch.indices, np.concatenate([part.indices for part in slices]))
        np.testing.assert_array_equal(batch.sources, np.concatenate([part.sources for part in slices]))
        np.testing.assert_array_equal(batch.labels, np.concatenate([part.labels for part in slices]))


def test_the_rank_comes_from_the_launcher(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert ids(take(mixture.open(), 2)) == ids(take(mixture.open(rank=2, world=3), 2))


@pytest.mark.parametrize("shards_and_ranks", [(3, 2), (1, 8)])
def test_fewer_shards_than_ranks(tmp_path: Path, shards_and_ranks: tuple[int, int]) -> None:
    shards, world = shards_and_ranks
    made = make_set(f"{tmp_path}/set", 30, 30 // shards)
    batches = [take(open_stream({"all": made.uri}, 16, 0, rank=rank, world=world), 20) for rank in range(world)]
    assert {len(part) for part in batches} == {20}
    assert Counter(ids([batch for part in batches for batch in part]).copy()).total() == 320


# ----------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.heavy
@pytest.mark.parametrize("window_shards", [None, 2])
def test_it_resumes_on_another_topology(mixture: Mixture, window_shards: int | None) -> None:
    whole = take(mixture.open(window_shards=window_shards), 40)
    with mixture.open(rank=1, world=4, window_shards=window_shards) as stream:
        for _ in range(17):
            next(stream)
        state = json.loads(json.dumps(stream.state_dict()))
    assert len(json.dumps(state)) < 1000
    for rank in range(3):
        with mixture.open(rank=rank, world=3, window_shards=window_shards, prefetch_batches=rank) as stream:
            next(stream)  # batches read before a state is loaded do not affect later ones
            assert stream.load_state_dict(state) == 17
            for batch, expected in zip(stream, whole[17:], strict=False):
                np.testing.assert_array_equal(batch.images, expected.images[stream.slice])
            assert stream.state_dict()["step"] == 41


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 saved, 1 now"),
        ({"global_batch": 64}, "global_batch: 48 saved, 64 now"),
        ({"window_shards": 2}, "window_shards: None saved, 2 now"),
        ({"size_px": 2}, "size_px: None saved, 2 now"),
        ({"sources": {"real": 9.5}}, r"weights: \{'real': 10.0, 'generated': 1.0\} saved, \{'real': 9.5"),
        ({"sources": {"real": None}}, "sources: "),
    ],
)
def test_another_stream_is_refused_by_name(mixture: Mixture, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with mixture.open() as stream:
        state = stream.state_dict()
    sources = mixture.sources
    for name, weight in change.pop("sources", {}).items():
        other = make_set(f"{tmp_path}/real", 40, 10, seed=9).uri if weight is None else sources[name].folder
        sources[name] = Source(other, weight or 10)
    with open_stream(sources, **{"global_batch": 48, "seed": 0, **change}) as stream, pytest.raises(BadInput, match=said):
        stream.load_state_dict(state)


def test_the_order_of_the_sources_is_part_of_the_stream_and_the_kind_of_number_is_not(mixture: Mixture) -> None:
    with mixture.open() as stream:
        state = stream.state_dict()
    (real, one), (generated, other) = mixture.sources.items()
    with open_stream({generated: other, real: one}, 48, 0) as stream, pytest.raises(BadInput, match="order: "):
        stream.load_state_dict(state)
    with open_stream({real: Source(one.folder, 10.0), generated: other}, 48, 0) as stream:
        stream.load_state_dict(state)


def test_a_state_of_three_sources_of_another_version_is_refused(mixture: Mixture) -> None:
    sources = {"a": mixture.real.uri, "b": mixture.generated.uri, "c": mixture.real.uri}
    with open_stream(sources, 48, 0) as stream:
        state = stream.state_dict()
        assert state.pop("apportionment") == 2
        with pytest.raises(BadInput, match="another version of adainf, which orders three or more sources differently"):
            stream.load_state_dict(state)
    with mixture.open() as stream:
        assert "apportionment" not in stream.state_dict()


@pytest.mark.parametrize("step", [None, "7", -1, 1.5])
def test_a_corrupt_state_is_refused(mixture: Mixture, step: Any) -> None:
    with mixture.open() as stream, pytest.raises(BadInput, match="not a step number"):
        stream.load_state_dict({**stream.state_dict(), "step": step})


# --------------------------------------------------------------------------------------------- agreement of ranks (check)


def check_all(mixture: Mixture, *openings: dict[str, Any], steps: int = 3) -> None:
    """Three steps on several ranks in one process: hashes are gathered first, then each rank compares them."""
    streams = [mixture.open(**opening) for opening in openings]
    for step in range(steps):
        batches = [next(stream) for stream in streams]
        hashes = [hash_at(stream, step, batch) for stream, batch in zip(streams, batches, strict=True)]
        for stream, batch in zip(streams, batches, strict=True):
            stream.check(step, batch.sources, batch.indices, gathered(hashes))


def gathered(hashes: list[int]) -> Callable[[int], list[int]]:
    return lambda _: hashes


def hash_at(stream: Stream, step: int, batch: Batch) -> int:
    """The hash that this rank would send to the others."""
    hashes: list[int] = []

    def note(value: int) -> list[int]:
        hashes.append(value)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        stream.check(step, batch.sources, batch.indices, note)
    return hashes[0]


def test_ranks_that_agree_pass(mixture: Mixture) -> None:
    check_all(mixture, *({"rank": rank, "world": 3} for rank in range(3)))


@pytest.mark.parametrize(
    "second",
    [{"rank": 0, "world": 2}, {"rank": 1, "world": 2, "seed": 1}, {"rank": 1, "world": 2, "window_shards": 2}],
    ids=["the same rank twice", "another seed", "another order"],
)
def test_ranks_that_do_not_agree_are_detected_in_the_first_step(mixture: Mixture, second: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"step 0: 2 processes for a stream of 2 ranks, and ranks \[1\] have other images"):
        check_all(mixture, {"rank": 0, "world": 2}, second)


def test_a_stale_manifest_is_detected(mixture: Mixture, tmp_path: Path) -> None:
    stale = Mixture(make_set(f"{tmp_path}/real", 40, 10, seed=9), mixture.generated)
    with mixture.open(rank=0, world=2) as one, stale.open(rank=1, world=2) as two:
        hashes = [hash_at(stream, 0, next(stream)) for stream in (one, two)]
        with pytest.raises(BadInput, match=r"ranks \[1\]"):
            one.check(0, *one.plan(0), gathered(hashes))


def test_a_missing_process_is_detected(mixture: Mixture) -> None:
    with mixture.open(rank=0, world=2) as stream:
        batch = next(stream)
        with pytest.raises(BadInput, match="1 processes for a stream of 2 ranks"):
            stream.check(0, batch.sources, batch.indices, lambda value: [value])


def test_a_second_split_by_accelerate_is_detected(mixture: Mixture) -> None:
    """accelerator.prepare takes every W-th item of an iterable, although each rank has taken its slice already."""
    from accelerate.data_loader import IterableDatasetShard

    class Items(IterableDataset):  # type: ignore[type-arg]
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __iter__(self):  # type: ignore[no-untyped-def]
            return ((batch.sources, batch.indices) for batch in self.stream)  # type: ignore[attr-defined]

    with mixture.open(rank=1, world=2) as stream:
        dealt = iter(IterableDatasetShard(Items(stream), batch_size=1, num_processes=2, process_index=1))
        sources, indices = next(dealt)
        with pytest.raises(BadInput, match="step 0, rank 1: the images received are not those of its slice"):
            stream.check(0, sources, indices, lambda value: [value, value])


# ---------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("resident", [False, True])
def test_on_a_device_they_are_the_same(mixture: Mixture, resident: bool) -> None:
    expected = take(mixture.open(), 25)
    with mixture.open() as stream:
        state = stream.state_at(20)
        batches = DeviceStream(stream, torch.device("cpu"), resident)
        for batch in expected[:10]:
            given = next(batches)
            assert torch.equal(given.images_BHWC, torch.from_numpy(batch.images))
            stream.check(given.step, given.sources, given.indices, lambda value: [value])
        assert batches.load_state_dict(state) == 20
        given = next(batches)
        assert given.step == 20
        assert torch.equal(given.images_BHWC, torch.from_numpy(expected[20].images))


def test_a_windowed_stream_cannot_be_resident(mixture: Mixture) -> None:
    with mixture.open(window_shards=2) as stream, pytest.raises(BadInput, match="never holds all its images"):
        DeviceStream(stream, torch.device("cpu"), resident=True)


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of world 2 is invalid"),
        ({"world": 49}, "global_batch is 48, fewer than the 49 ranks"),
        ({"window_shards": 0}, "window_shards is 0; set a whole number of 1 or more"),
        ({"size_px": 0}, "size_px is 0; set a whole number of 1 or more"),
        ({"prefetch_batches": -1}, "prefetch_batches is -1; set a whole number of 0 or more"),
        ({"window_shards": 1.5}, "window_shards is 1.5; set a whole number of 1 or more"),
        ({"rank": "0"}, "rank is '0'; give a whole number"),
        ({"global_batch": 48.0}, "global_batch is 48.0; give a whole number"),
        ({"seed": 1.5}, "seed is 1.5; set a whole number"),
        ({"seed": -1}, r"seed is -1; set a whole number of 0 … 2\^64 - 1"),
        (
            {"cache_bytes": 10_000},
            r"images need [\d,]+ bytes, [\d,]+ more than cached, and the cache .* has [\d,]+ available",
        ),
        ({"cache": "/proc/nowhere"}, "the cache folder /proc/nowhere cannot be used"),
    ],
)
def test_invalid_arguments_are_refused(mixture: Mixture, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        mixture.open(**options)


def test_invalid_sources_are_refused(mixture: Mixture, tmp_path: Path) -> None:
    small = make_set(f"{tmp_path}/small", 10, 5, size_px=2)
    cases: list[tuple[Any, str]] = [
        ({"a": f"{tmp_path}"}, "manifest.json does not exist; give the folder of a set of shards"),
        ({"a": Source(small.uri, split="test")}, "has no images in split 'test'; choose a split with images: train"),
        ({"a": Source(small.uri, weight=0)}, "source a has weight 0; give it a finite number above 0, or leave the source out"),
        ({"a": Source(small.uri, weight=-1), "b": mixture.real.uri}, "source a has weight -1"),
        ({"a": Source(small.uri, weight=float("nan"))}, "source a has weight nan"),
        ({"a": Source(small.uri, weight=cast(float, "2"))}, "source a has weight '2'; give it a finite number above 0"),
        ({"a": 3}, "a source is 3; give the address of a set of shards"),
        ([small.uri], r"sources is \['.*; give a dict of NAME: ADDRESS"),
        ({}, "no source has both images and weight"),
        ({"a": small.uri, "b": mixture.real.uri}, r"differ in size \(a 2 x 2, b 4 x 4 px\); set size_px"),
    ]
    for sources, said in cases:
        with pytest.raises(BadInput, match=said):
            open_stream(sources, 4, 0)


def test_a_source_may_have_a_share(mixture: Mixture) -> None:
    real, generated = mixture.real.uri, mixture.generated.uri
    by_weight = open_stream({"real": Source(real, 20), "generated": generated}, 48, 0)
    cases: tuple[dict[str, float | Fraction], ...] = (
        {"real": 0.5},
        {"generated": 0.5},
        {"real": Fraction(1, 2), "generated": 0.5},
    )
    for given in cases:
        sources = {name: Source(address, share=given.get(name)) for name, address in (("real", real), ("generated", generated))}
        with open_stream(sources, 48, 0) as stream:
            assert stream.shares == {"real": Fraction(1, 2), "generated": Fraction(1, 2)}
            np.testing.assert_array_equal(stream.plan(7), by_weight.plan(7))
    by_weight.close()
    thirds = {name: Source(address, share=1 / 3) for name, address in (("a", real), ("b", generated), ("c", real))}
    with open_stream(thirds, 48, 0) as stream:
        assert set(stream.shares.values()) == {Fraction(1, 3)}
        assert stream.share_error == 0
        assert json.loads(json.dumps(stream.state_dict()))["weights"] == {"a": "1/120", "b": "1/2400", "c": "1/120"}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"share": 0.5}, {"share": 0.4}, "the shares of a, b sum to 0.9; let them sum to 1"),
        ({"share": 1}, {}, "the shares of a sum to 1; let them sum to less than 1, to leave the rest to the other sources"),
        ({"share": 1.5}, {}, "source a has share 1.5; give it a number above 0, at most 1"),
        ({"share": 0}, {}, "source a has share 0; give it a number above 0"),
        ({"share": "half"}, {}, "source a has share 'half'; give it a number above 0"),
        ({"share": 0.5, "weight": 2}, {}, "source a has weight 2 and share 0.5; give it one of them"),
    ],
)
def test_invalid_shares_are_refused(mixture: Mixture, first: dict[str, Any], second: dict[str, Any], said: str) -> None:
    sources = {"a": Source(mixture.real.uri, **first), "b": Source(mixture.generated.uri, **second)}
    with pytest.raises(BadInput, match=said):
        open_stream(sources, 48, 0)


def test_the_state_of_a_fractional_weight_is_that_of_its_float(mixture: Mixture) -> None:
    sources = mixture.sources
    with open_stream({**sources, "real": Source(mixture.real.uri, 1 / 3)}, 48, 0) as stream:
        state = json.loads(json.dumps(stream.state_dict()))
    with open_stream({**sources, "real": Source(mixture.real.uri, Fraction(1, 3))}, 48, 0) as stream:
        stream.load_state_dict(state)


def test_a_source_may_be_a_path(mixture: Mixture) -> None:
    (by_path,) = take(open_stream({"a": Path(mixture.real.uri)}, 8, 0), 1)
    (by_text,) = take(open_stream({"a": mixture.real.uri}, 8, 0), 1)
    np.testing.assert_array_equal(by_path.images, by_text.images)


@pytest.mark.parametrize("step", [-1, 1.5, "3"])
def test_an_invalid_step_to_seek_is_refused(mixture: Mixture, step: Any) -> None:
    with mixture.open() as stream:
        with pytest.raises(BadInput, match=f"seek to step {step!r} is invalid"):
            stream.seek(step)
        assert next(stream).step == 0


def test_images_are_resized_to_one_size(mixture: Mixture, tmp_path: Path) -> None:
    small = make_set(f"{tmp_path}/small", 10, 5, size_px=2)
    (batch,) = take(open_stream({"a": small.uri, "b": mixture.real.uri}, 20, 0, size_px=3), 1)
    assert np.asarray(batch.images).shape == (20, 3, 3, 3)


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "ADAINF_CACHE_BYTES"])
def test_environment_variables_that_are_not_numbers(mixture: Mixture, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(BadInput, match=f"{variable} is 'x', not a number"):
        mixture.open()
