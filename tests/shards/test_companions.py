"""Companions: one candidate per image of a source, by (seed, image, pass): the same on any topology, windowed or in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adainf.augment.originals import OriginalCrops
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Request
from adainf.shards import Batch, Companions, Source, Stream, open_stream
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import SplitWriter, joined_split
from adainf.shards.loader.device import DeviceStream
from tests.shards.sets import make_set, take

REAL, CANDIDATES, SHARD = 45, 3, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """45 real images in shards of 10, 3 candidates of each, and 200 generated images. Pixel 0 of candidate c of i is (i, c)."""
    uri = str(tmp_path_factory.mktemp("sets"))
    make_set(f"{uri}/real", REAL, SHARD, seed=1)
    make_set(f"{uri}/generated", 200, 20, seed=2)
    make_candidates(uri, "candidates", REAL)
    return uri


def make_candidates(uri: str, name: str, images: int, parents: str | None = None) -> None:
    run = Run(uri)
    writers = [SplitWriter(run, name, f"{number:03d}", images, SHARD) for number in range(CANDIDATES)]
    for number, writer in enumerate(writers):

        def drawn(indices: range, number: int = number) -> list[Sample]:
            images = np.zeros((len(indices), 4, 4, 3), np.uint8)
            images[:, 0, 0, 0], images[:, 0, 0, 1] = np.array(indices) % 256, number
            return [Sample(image, None) for image in images]

        writer.write(range(len(writer)), drawn, lambda images: None)
    parents = parents or ShardFolder.open(f"{uri}/real").digest
    content = ShardSet(height_px=4, width_px=4, splits={"train": joined_split(writers)}, origin={"parents": parents})
    run.commit(name, Manifest(request=Request(stage="test", settings={}), content=content.model_dump(mode="json")))


def opened(
    folder: str, global_batch: int = 24, seed: int = 0, companions: dict[str, Any] | None = None, **options: Any
) -> Stream:
    sources = {"generated": Source(f"{folder}/generated"), "real": Source(f"{folder}/real", weight=10)}
    wanted = Companions(f"{folder}/candidates", **(companions or {}))
    return open_stream(sources, global_batch, 0, companions=wanted, **options)


def pairs(batches: list[Batch]) -> list[tuple[int, int, int, int]]:
    """(step, row, parent, candidate number) of all companions, as their pixels say."""
    found = []
    for batch in batches:
        assert batch.companions is not None
        for row, image in zip(batch.companions.rows.tolist(), batch.companions.images, strict=True):
            found.append((batch.step, row, int(image[0, 0, 0]), int(image[0, 0, 1])))
    return found


@pytest.mark.parametrize("window_shards", [None, 2])
def test_every_real_image_has_a_candidate_of_its_own_and_no_generated_one_has(folder: str, window_shards: int | None) -> None:
    batches = take(opened(folder, window_shards=window_shards), 60)
    for batch in batches:
        assert batch.companions is not None
        assert batch.companions.rows.tolist() == np.flatnonzero(batch.sources == 1).tolist()
        assert batch.companions.images[:, 0, 0, 0].tolist() == batch.indices[batch.companions.rows].tolist()
    numbers = [number for *_, number in pairs(batches)]
    assert min(numbers.count(number) for number in range(CANDIDATES)) > len(numbers) / 5


def test_in_memory_and_windowed_streams_choose_the_same_candidate_for_an_image_in_a_pass(folder: str) -> None:
    """Their orders differ; passes over the images end at the same positions."""
    chosen = []
    for window_shards in (None, 2):
        with opened(folder, global_batch=REAL, window_shards=window_shards) as stream:
            found: dict[tuple[int, int], int] = {}
            seen = dict.fromkeys(range(REAL), 0)
            for batch in take(stream, 40):
                assert batch.companions is not None
                for image, number in batch.companions.images[:, 0, 0, :2].tolist():
                    found[image, seen[image]] = number
                    seen[image] += 1
            chosen.append(found)
    common = chosen[0].keys() & chosen[1].keys()
    assert len(common) > 20 * REAL
    assert all(chosen[0][key] == chosen[1][key] for key in common)


@pytest.mark.parametrize(
    ("window_shards", "companions"), [(None, {}), (2, {}), (None, {"probability": 0.4}), (None, {"random": True})]
)
def test_any_number_of_ranks_has_the_same_companions(
    folder: str, window_shards: int | None, companions: dict[str, Any]
) -> None:
    one = pairs(take(opened(folder, companions=companions, window_shards=window_shards), 4))
    for world in (2, 4):
        together = []
        for rank in range(world):
            with opened(folder, companions=companions, window_shards=window_shards, rank=rank, world=world) as stream:
                first = stream.slice.start
                together += [(step, row + first, *rest) for step, row, *rest in pairs(take(stream, 4))]
        assert sorted(together) == one


@pytest.mark.parametrize("window_shards", [None, 2])
def test_a_resumed_stream_continues_with_the_same_companions(folder: str, window_shards: int | None) -> None:
    expected = pairs(take(opened(folder, window_shards=window_shards), 30))
    with opened(folder, window_shards=window_shards) as stream:
        for _ in range(17):
            next(stream)
        state = stream.state_dict()
    with opened(folder, window_shards=window_shards) as resumed:
        resumed.load_state_dict(state)
        assert pairs(take(resumed, 13)) == [pair for pair in expected if pair[0] >= 17]
    for other in ({"probability": 0.5}, {"random": True}):
        with opened(folder, companions=other) as stream, pytest.raises(BadInput, match="companions"):
            stream.load_state_dict(state)
    with open_stream({"generated": f"{folder}/generated", "real": Source(f"{folder}/real", weight=10)}, 24, 0) as stream:
        assert "companions" not in stream.state_dict(), "states of streams without companions stay"
        assert next(stream).companions is None


def test_a_probability_is_exact_by_image_and_pass(folder: str) -> None:
    """The images with a companion are a subset of those with a higher probability, with the same candidates."""
    every, some = (pairs(take(opened(folder, companions={"probability": p}), 100)) for p in (1, 0.3))
    assert set(some) < set(every)
    assert len(some) / len(every) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("window_shards", [None, 2])
def test_the_control_has_candidates_of_other_images_of_the_shard(folder: str, window_shards: int | None) -> None:
    for batch in take(opened(folder, companions={"random": True}, window_shards=window_shards), 40):
        assert batch.companions is not None
        own, parents = batch.indices[batch.companions.rows], batch.companions.images[:, 0, 0, 0]
        assert (own != parents).all()
        assert (own // SHARD == parents // SHARD).all()


def test_companions_on_the_device_are_those_of_the_stream(folder: str) -> None:
    with opened(folder) as one, opened(folder) as other:
        streamed, resident = DeviceStream(one, torch.device("cpu")), DeviceStream(other, torch.device("cpu"), resident=True)
        for _ in range(5):
            a, b = next(streamed).companions, next(resident).companions
            assert a is not None
            assert b is not None
            assert torch.equal(a.rows, b.rows)
            assert torch.equal(a.images_BHWC, b.images_BHWC)


def test_a_corrupt_candidate_is_left_out_not_replaced(folder: str, tmp_path: Path) -> None:
    """Another sample of its shard would be a candidate of another image."""
    images = 1500  # one of them may be corrupt
    make_set(f"{tmp_path}/real", images, SHARD)
    make_candidates(str(tmp_path), "candidates", images)
    index = ShardFolder.open(f"{tmp_path}/candidates").index(
        next(ShardFolder.open(f"{tmp_path}/candidates").split("train").shards)
    )
    path = tmp_path / "candidates" / index.tar.key
    data = bytearray(path.read_bytes())
    data[index.image_offsets[4] + 60] ^= 1
    path.write_bytes(data)
    wanted = Companions(f"{tmp_path}/candidates")
    with open_stream({"real": f"{tmp_path}/real"}, 500, 0, companions=wanted, damage="quarantine") as stream:
        left_out = 0
        for batch in take(stream, 30):
            assert batch.companions is not None
            parents = batch.indices[batch.companions.rows] % 256
            assert batch.companions.images[:, 0, 0, 0].tolist() == parents.tolist()
            left_out += 500 - len(batch.companions.rows)
        assert 0 < left_out < 11
    with pytest.raises(BadInput), open_stream({"real": f"{tmp_path}/real"}, 500, 0, companions=wanted) as stream:
        take(stream, 30)


@pytest.mark.parametrize(
    ("companions", "sentence"),
    [
        ({"of": "fake"}, "companions are of source 'fake', which is not among generated, real"),
        ({"probability": 0}, "the probability of companions is 0; give a number above 0"),
        ({"probability": 1.5}, r"the probability of companions is 1\.5"),
        ({"probability": "all"}, "the probability of companions is 'all'"),
        ({"of": "generated"}, "holds candidates of another set"),
    ],
)
def test_wrong_companions_are_refused(folder: str, companions: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        opened(folder, companions=companions)


def test_sets_that_do_not_fit_are_refused(folder: str, tmp_path: Path) -> None:
    for name, images, parents in (("fewer", REAL - 1, None), ("foreign", REAL, "0" * 64)):
        make_candidates(folder, name, images, parents)
        with pytest.raises(BadInput, match="is not aligned with" if name == "fewer" else "of another set than"):
            open_stream({"real": f"{folder}/real"}, 8, 0, companions=Companions(f"{folder}/{name}"))
    with pytest.raises(BadInput, match="give Companions"):
        open_stream({"real": f"{folder}/real"}, 8, 0, companions=f"{folder}/candidates")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="nothing"):
        open_stream({"real": f"{folder}/real"}, 8, 0, companions=Companions(f"{tmp_path}/nothing"))


def test_crops_do_not_go_with_companions(folder: str, tmp_path: Path) -> None:
    """They would be left out silently."""
    with opened(folder, cached="encoded", cache=tmp_path) as stream, pytest.raises(BadInput, match="leave out companions"):
        stream.crop(OriginalCrops(0, (), 4))
