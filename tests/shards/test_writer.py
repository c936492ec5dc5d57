"""The writer: its bytes equal those of the standard library, and it never replaces other samples in the store."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adainf.errors import AdaInfError, StageFailed
from adainf.pipeline.artifacts import Run
from adainf.shards.format.manifest import Split
from adainf.shards.format.png import encode_stored_png
from adainf.shards.format.tar import Sample, encode_shard
from adainf.shards.format.writer import SplitWriter, pixel_facts
from adainf.storage.base import ObjectInfo
from adainf.storage.local import LocalStore
from tests.shards import slow
from tests.shards.tars import read_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 5, 6, 3), dtype=np.uint8)


def made(indices: range) -> list[Sample]:
    return [Sample(IMAGES[index], index) for index in indices]


def other(indices: range) -> list[Sample]:
    return [Sample(255 - IMAGES[index], index) for index in indices]


def writer(run: Run, **options: Any) -> SplitWriter:
    return SplitWriter(run, "set", "ab/train", 10, 4, **options)


def write(run: Run, make: Callable[[range], list[Sample]] = made, numbers: range = range(3), **options: Any) -> Split | None:
    split = writer(run, **options)
    split.write(numbers, make, lambda images: None)
    return None if split.missing() else split.split()


def objects(run: Run) -> dict[str, bytes]:
    return {info.key: run.store.get(info.key) for info in run.store.list()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path))


# ------------------------------------------------------------------------------------------------------------- its bytes


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    """Of one size or several; with and without labels and captions, of no two in the same places."""
    shape = st.tuples(st.integers(1, 9), st.integers(1, 9))
    shapes = draw(st.lists(shape, max_size=6) | st.builds(lambda one, n: [one] * n, shape, st.integers(0, 6)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    label = st.none() | st.integers(-(10**20), 10**20)
    text = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=600)
    return [Sample(random.integers(0, 256, (*each, 3), dtype=np.uint8), draw(label), draw(text)) for each in shapes]


@given(st.integers(0, 10**8), samples())
@settings(deadline=None, max_examples=150)
def test_a_shard_equals_that_of_the_standard_library(first_index: int, given_samples: list[Sample]) -> None:
    assert encode_shard(first_index, given_samples) == slow.tar(first_index, given_samples)


@pytest.mark.parametrize(("height", "width"), [(1, 21_844), (1, 21_845), (65_535, 1), (150, 150), (300, 227)])
def test_an_image_of_several_deflate_blocks(height: int, width: int) -> None:
    """A stored block ends at 65,535 bytes, within a row or at its end."""
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encode_stored_png(image)
    assert data == slow.stored_png(image)
    with Image.open(io.BytesIO(data)) as read:
        assert (np.asarray(read) == image).all()


def test_strided_views_are_written_as_arrays() -> None:
    """Views with strides, as a crop or a BGR source gives."""
    views = [Sample(image[::-1, 1:, ::-1], None) for image in IMAGES]
    assert encode_shard(0, views) == slow.tar(0, views)


def test_a_compressed_shard_holds_the_same_pixels_in_fewer_bytes() -> None:
    flat = [Sample(np.full((32, 32, 3), value, np.uint8), value) for value in range(3)]
    deflated = encode_shard(5, flat, "deflate")
    assert len(deflated) < len(encode_shard(5, flat))
    for found, sample in zip(read_tar(deflated), flat, strict=True):
        with Image.open(io.BytesIO(found.image)) as image:
            assert (np.asarray(image) == sample.image).all()
        assert found.label == sample.label


@pytest.mark.parametrize("count", [1, 16, 17, 40])
def test_pixel_facts_are_those_of_a_loop(count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 3, 5, 3), dtype=np.uint8)
    facts = pixel_facts(iter(np.moveaxis(np.ascontiguousarray(np.moveaxis(images, 3, 1)), 1, 3)))  # as torch lays them out
    assert facts is not None
    values = [tuple(int(value) for value in pixel) for image in images for row in image for pixel in row]
    assert facts.channel_sums == tuple(sum(pixel[c] for pixel in values) for c in range(3))
    assert facts.channel_square_sums == tuple(sum(pixel[c] ** 2 for pixel in values) for c in range(3))
    assert (facts.images, facts.height_px, facts.width_px) == (count, 3, 5)
    assert facts.sha256 == hashlib.sha256(images.tobytes()).hexdigest()


def test_images_that_differ_in_size_have_no_facts_and_all_are_read() -> None:
    seen = []
    sizes = (image for number in range(40) if not seen.append(number) for image in [np.zeros((1 + number, 1, 3), np.uint8)])
    assert pixel_facts(sizes) is None
    assert len(seen) == 40


# ----------------------------------------------------------------------------------------------------- existing shards


def test_the_objects_do_not_depend_on_which_process_writes_which_shard(tmp_path: Path) -> None:
    alone, shared = Run(str(tmp_path / "alone")), Run(str(tmp_path / "shared"))
    whole = write(alone)
    assert write(shared, numbers=range(2, 3)) is None
    assert write(shared, numbers=range(1, 3)) is None
    assert write(shared, numbers=range(0, 3, 2)) == whole
    assert objects(shared) == objects(alone)
    assert whole is not None
    assert whole.tar_keys == [f"ab/train-{number:06d}.tar" for number in range(3)]


def test_existing_shards_are_neither_created_nor_written_again(run: Run) -> None:
    write(run)
    before = [(info.key, info.etag) for info in run.store.list()]
    advanced: list[int] = []
    split = writer(run)
    split.write(range(3), lambda indices: pytest.fail("made again"), advanced.append)
    assert sum(advanced) == 10
    assert [(info.key, info.etag) for info in run.store.list()] == before


def test_a_shard_of_the_same_pixels_in_other_bytes_is_adopted(run: Run) -> None:
    """As by another zlib build: the index describes the existing tar."""
    write(run, compression="deflate")
    before = objects(run)
    run.store.delete("set/ab/train-000001.index.json")
    assert write(run, compression="stored") is not None
    assert objects(run) == before


def test_other_pixels_are_an_error_and_nothing_is_overwritten(run: Run) -> None:
    write(run)
    run.store.delete("set/ab/train-000001.index.json")
    before = objects(run)
    with pytest.raises(StageFailed, match=r"set/ab/train-000001\.tar holds other samples 4 to 7 .*another kind of device"):
        write(run, make=other)
    assert objects(run) == before


def test_other_labels_are_an_error(run: Run) -> None:
    write(run)
    run.store.delete("set/ab/train-000000.index.json")
    with pytest.raises(StageFailed, match="holds other samples 0 to 3"):
        write(run, make=lambda indices: [Sample(IMAGES[index], index + 1) for index in indices])


@pytest.mark.parametrize("corrupt", [lambda data: data[:700], lambda data: data[:600] + b"x" + data[601:], lambda data: b""])
def test_a_corrupt_tar_without_an_index_is_written_again(run: Run, corrupt: object) -> None:
    write(run)
    before = objects(run)
    run.store.delete("set/ab/train-000001.index.json")
    run.store.put("set/ab/train-000001.tar", corrupt(before["set/ab/train-000001.tar"]))
    assert write(run) is not None
    assert objects(run) == before


@pytest.mark.parametrize("corrupt", [lambda data: data[:-9], lambda data: data.replace(b'"000004"', b'"000005"')])
def test_a_shard_whose_index_does_not_match_is_missing(run: Run, corrupt: object) -> None:
    write(run)
    before = objects(run)
    run.store.put("set/ab/train-000001.index.json", corrupt(before["set/ab/train-000001.index.json"]))
    assert writer(run).missing() == [1]
    assert write(run) is not None
    assert objects(run) == before


def test_a_tar_of_another_size_than_its_index_says_is_missing(run: Run) -> None:
    write(run)
    before = objects(run)
    run.store.put("set/ab/train-000002.tar", before["set/ab/train-000002.tar"][:1000])
    assert writer(run).missing() == [2]
    write(run)
    assert objects(run) == before


# ------------------------------------------------------------------------------------------- pipelined uploads


class Gated(LocalStore):
    """A folder whose uploads of tars block until the gate opens."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.reached, self.gate = threading.Event(), threading.Event()

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        if key.endswith(".tar"):
            self.reached.set()
            assert self.gate.wait(30)
        return super().put_if_absent(key, data)


def test_a_shard_is_uploaded_while_only_the_next_is_created(tmp_path: Path) -> None:
    store = Gated(str(tmp_path))
    began: list[int] = []
    advanced: list[int] = []

    def make(indices: range) -> list[Sample]:
        began.append(indices.start)
        if indices.start == 4:
            assert store.reached.wait(30), "the first shard is not uploaded while the second is created"
            assert sum(advanced) == 0, "a shard counted that is not in the store"
            threading.Timer(0.3, lambda: (began.append(-1), store.gate.set())).start()
        return made(indices)

    writer(Run(store)).write(range(3), make, advanced.append)
    assert began == [0, 4, -1, 8], "a third shard was created before the first was uploaded"
    assert [images for images in advanced if images] == [4, 4, 2]


def test_an_error_of_an_upload_is_raised(tmp_path: Path) -> None:
    class Full(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
            if key.endswith("000001.tar"):
                raise AdaInfError("no space left")
            return super().put_if_absent(key, data)

    run = Run(Full(str(tmp_path)))
    with pytest.raises(AdaInfError, match="no space left"):
        write(run)
    assert writer(run).missing() == [1, 2]
    assert write(Run(str(tmp_path))) is not None


def test_an_upload_in_progress_finishes_when_the_next_shard_is_interrupted(run: Run) -> None:
    def make(indices: range) -> list[Sample]:
        if indices.start == 4:
            raise KeyboardInterrupt
        return made(indices)

    with pytest.raises(KeyboardInterrupt):
        write(run, make=make)
    assert writer(run).missing() == [1, 2]
    assert sorted(objects(run)) == ["set/ab/train-000000.index.json", "set/ab/train-000000.tar"]
