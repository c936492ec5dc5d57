"""The sources at a URI, and the samples of a page, compared with the images that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from adainf.browse.catalog import Catalog, SampleRef, find, page
from adainf.browse.lru import LruCache
from adainf.browse.quality import ShardQuality, quality_of
from adainf.browse.reader import MAX_GAP_BYTES, Reader, Unreadable, coalesce
from adainf.browse.statistics import exact_duplicates, label_counts
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Request
from adainf.shards.format.png import decode_image
from tests.browse.hostile import png, tar
from tests.shards.sets import Made, make_set


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_set(f"{tmp_path}/run/real", 50, 20, size_px=8)


def _pixels(made: Made, samples: list[SampleRef], source: str | None = None, uri: str = "") -> np.ndarray:
    images = Reader().read(Catalog(uri or made.uri).source(source), samples)
    return np.stack([decode_image(image) for image in images if isinstance(image, bytes)])


def test_a_run_a_set_and_bare_tars_show_the_same_images(made: Made, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in made.path.glob("*.tar"):
        (bare / path.name).write_bytes(path.read_bytes())
    for uri, name in ((str(made.path.parent), "real/train"), (made.uri, "train"), (str(bare), "tars")):
        catalog = Catalog(uri)
        assert list(catalog.sources) == [name]
        found = page(catalog.source(name), 15, 30)
        assert np.array_equal(_pixels(made, found.samples, name, uri), made.images[15:45])


def test_of_bare_tars_only_those_needed_are_read(made: Made) -> None:
    for name in ("manifest.json", "request.json"):
        (made.path / name).unlink(missing_ok=True)
    source = Catalog(made.uri).source("tars")
    found = page(source, 0, 10)
    assert (len(found.samples), found.total, found.complete) == (10, 20, False)
    assert source.counts == [20, None, None]
    found = page(source, 40, 20)
    assert (len(found.samples), found.total, found.complete) == (10, 50, True)


@pytest.mark.parametrize(("shard", "label"), [(None, None), (1, None), (None, 3), (2, 7), (None, 99)])
def test_pages_of_any_size_are_the_selection_in_order(made: Made, shard: int | None, label: int | None) -> None:
    numbers = np.arange(50)
    wanted = numbers[(shard is None or numbers // 20 == shard) & ((label is None) | (made.labels == label))]
    source = Catalog(made.uri).source(None)
    shards = None if shard is None else [shard]
    for size in (1, 7, 60):
        pages = [page(source, first, size, shards, label) for first in range(0, max(1, len(wanted)), size)]
        found = [20 * sample.shard + sample.number for one in pages for sample in one.samples]
        assert found == wanted.tolist()
        assert {one.total for one in pages} == {len(wanted)}


def test_quality_orders_shards_as_measured_and_malformed_measurements_are_ignored(made: Made) -> None:
    run = Run(str(made.path.parent))
    (made.path.rename(made.path.with_name("generated")))
    source = Catalog(run.uri).source("generated/train")

    def measured(fd: JsonValue) -> ShardQuality | None:
        content: dict[str, JsonValue] = {"shards": {"fd": {"rand": [0.0, 0.0, 0.0], "ssl": fd}}}
        (made.path.parent / "quality").mkdir(exist_ok=True)
        data = Manifest(request=Request(stage="measure", settings={}), content=content).to_json()
        (made.path.parent / "quality/manifest.json").write_bytes(data)
        return quality_of(run, source)

    found = measured([2.5, 7, 1.0])
    assert found
    assert found.space == "ssl"
    orders = {"best": [2, 0, 1], "worst": [1, 0, 2], "top": [2], "middle": [0], "bottom": [1]}
    assert {order: found.shards(order) for order in orders} == orders
    for label in (None, 3):
        samples = page(source, 0, 60, found.shards("best"), label).samples
        numbers = [20 * sample.shard + sample.number for sample in samples]
        order = np.concatenate([np.arange(40, 50), np.arange(20), np.arange(20, 40)])
        assert numbers == [number for number in order if label is None or made.labels[number] == label]
    odds: list[JsonValue] = [[1.0, 2.0], [1.0, "2", 3.0], {"a": 1}, None, "abc"]
    for odd in odds:
        assert measured(odd) is None


def test_keys_and_numbers_name_samples(made: Made) -> None:
    source = Catalog(made.uri).source(None)
    assert find(source, "000043") == find(source, "43") == SampleRef(2, 3)
    for wrong in ("50", "no", "-1", "../manifest"):
        with pytest.raises(BadInput, match="no sample"):
            find(source, wrong)


def test_only_small_gaps_are_coalesced(made: Made) -> None:
    columns = Catalog(made.uri).source(None).columns(0)
    assert coalesce(columns, [3, 1, 2]) == [[1, 2, 3]]
    apart = next(n for n in range(1, 20) if columns.offsets[n] - columns.offsets[0] > MAX_GAP_BYTES + 300)
    assert coalesce(columns, [0, apart]) == [[0], [apart]]


def test_corruption_is_reported_only_for_its_sample(made: Made) -> None:
    source = Catalog(made.uri).source(None)
    path = made.path / source.tar_keys[0].rpartition("/")[2]
    data = bytearray(path.read_bytes())
    data[int(source.columns(0).offsets[4]) + 60] ^= 1
    path.write_bytes(data[: int(source.columns(0).offsets[18])])
    images = Reader().read(source, [SampleRef(0, n) for n in range(3)] + [SampleRef(1, 0)])
    assert all(isinstance(image, bytes) for image in images)
    images = Reader().read(source, [SampleRef(0, 4), SampleRef(0, 5), SampleRef(0, 19), SampleRef(0, 20), SampleRef(1, 19)])
    assert [isinstance(image, Unreadable) for image in images] == [True, False, True, True, False]
    (made.path / "train-000001.index.json").write_text("{}")
    images = Reader().read(Catalog(made.uri).source(None), [SampleRef(0, 0), SampleRef(1, 0), SampleRef(2, 0)])
    assert [isinstance(image, Unreadable) for image in images] == [False, True, False]


def test_labels_and_exact_duplicates_are_counted(tmp_path: Path) -> None:
    files = {f"{name}.png": png(value) for name, value in (("a", 1), ("b", 2), ("c", 1), ("d", 3))}
    (tmp_path / "x.tar").write_bytes(tar({**files, "e.png": png(2), "e.cls": b"5"}))
    (tmp_path / "y.tar").write_bytes(tar({"f.png": png(1), "f.cls": b"5"}))
    source = Catalog(str(tmp_path)).source(None)
    page(source, 0, 100)
    assert label_counts(source) == {5: 2}
    assert exact_duplicates(source, Reader()) == [
        [SampleRef(0, 0), SampleRef(0, 2), SampleRef(1, 0)],
        [SampleRef(0, 1), SampleRef(0, 4)],
    ]


def test_least_recently_used_is_evicted_first_and_the_limit_holds() -> None:
    cache: LruCache[str] = LruCache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)
    cache.put("c", "C", 5)
    cache.put("huge", "D", 11)
    assert [cache.get(key) for key in ("a", "b", "c", "huge")] in ([None] * 4, ["A", None, "C", None])
    assert cache.size_bytes <= 10


def test_nothing_to_show_is_bad_input(tmp_path: Path) -> None:
    for uri in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(BadInput):
            Catalog(uri)
    with pytest.raises(BadInput, match="no source"):
        Catalog(make_set(f"{tmp_path}/set", 4, 2).uri).source("real/train")
