"""The limit of the cache holds in every mode, and space is there before it is needed."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from adainf.errors import BadInput
from adainf.pipeline.progress import Reporter
from adainf.shards import Batch, Source, open_stream
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.in_memory import InMemorySplit
from adainf.sources.indexing import index_tars
from tests.shards.sets import make_set, take

SHARDS, SHARD_IMAGES = 24, 8
LARGEST = SHARD_IMAGES * 40 * 40 * 3 + 8192
"""Bytes of a decoded shard, at most: table and blocks of the disk included."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set of images of 20 to 40 px."""
    folder = tmp_path_factory.mktemp("sets") / "mixed"
    chance = np.random.default_rng(0)
    folder.mkdir()
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"{shard:02d}.tar")) as writer:
            for number in range(SHARD_IMAGES):
                buffer = io.BytesIO()
                pixels = chance.integers(0, 256, (*chance.integers(20, 41, 2), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "png")
                writer.write({"__key__": f"{shard:02d}-{number}", "png": buffer.getvalue()})
    index_tars(str(folder), Reporter())
    return str(folder)


def used_bytes(folder: Path) -> int:
    total = 0
    for file in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # renamed or evicted in between
            total += file.stat().st_blocks * 512
    return total


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x.images, y.images, strict=True)]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("size_px", [None, 32], ids=["several sizes", "one size"])
def test_a_windowed_stream_stays_within_the_limit(mixed: str, tmp_path: Path, size_px: int | None) -> None:
    limit = 5 * LARGEST if size_px is None else 8 * LARGEST  # two windows of two shards, or four
    expected = take(open_stream({"all": mixed}, 16, 0, window_shards=2, size_px=size_px, cache=tmp_path / "free"), 40)
    options: dict[str, Any] = {"window_shards": 2, "size_px": size_px, "cache": tmp_path / "cache", "cache_bytes": limit}
    most, batches = 0, []
    with open_stream({"all": mixed}, 16, 0, **options) as stream:
        for batch, _ in zip(stream, range(40), strict=False):
            batches.append(batch)
            most = max(most, used_bytes(tmp_path / "cache"))
    assert same(batches, expected)
    assert 0 < most <= limit


def test_what_a_killed_process_left_is_removed(mixed: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"window_shards": 2, "cache": tmp_path / "cache", "cache_bytes": 6 * LARGEST}
    take(open_stream({"all": mixed}, 16, 0, **options), 4)
    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    (entry / "3.new").write_bytes(b"x" * 6 * LARGEST)
    assert len(take(open_stream({"all": mixed}, 16, 0, **options), 12)) == 12


def test_two_sources_of_several_sizes_share_the_limit(mixed: str, tmp_path: Path) -> None:
    limit, most = 10 * LARGEST, 0
    sources: dict[str, Source | str] = {"a": mixed, "b": Source(mixed, weight=3)}
    options: dict[str, Any] = {"window_shards": 2, "cache": tmp_path / "cache"}
    expected = take(open_stream(sources, 16, 0, **(options | {"cache": tmp_path / "free"})), 30)
    batches = []
    with open_stream(sources, 16, 0, cache_bytes=limit, **options) as stream:
        for batch, _ in zip(stream, range(30), strict=False):
            batches.append(batch)
            most = max(most, used_bytes(tmp_path / "cache"))
    assert same(batches, expected)
    assert 0 < most <= limit


@pytest.mark.parametrize(("window_shards", "global_batch"), [(8, 16), (2, 160)], ids=["windows", "a batch of many windows"])
def test_windows_that_do_not_fit_are_an_error(mixed: str, tmp_path: Path, window_shards: int, global_batch: int) -> None:
    options: dict[str, Any] = {"window_shards": window_shards, "cache": tmp_path / "cache", "cache_bytes": 6 * LARGEST}
    with pytest.raises(BadInput, match=r"mixed, split train: its decoded images need .* window_shards: two windows must fit"):
        take(open_stream({"all": mixed}, global_batch, 0, **options), 30)
    assert used_bytes(tmp_path / "cache") <= 6 * LARGEST


def test_a_set_that_is_open_keeps_its_space_before_it_is_filled(tmp_path: Path) -> None:
    """Two jobs that start at the same time must not both find the space of one."""
    sets = [make_set(f"{tmp_path}/set-{n}", 100, 50, seed=n, size_px=16) for n in range(2)]
    limit = 100 * (16 * 16 * 3 + 16) + 40_000
    first = Cache(tmp_path / "cache", limit)
    split = InMemorySplit(ShardFolder.open(sets[0].uri), "train", first, "fail")
    assert used_bytes(tmp_path / "cache") < 10_000
    with pytest.raises(BadInput, match=r"has [\d,]+ available"):
        open_stream({"all": sets[1].uri}, 8, 0, cache=tmp_path / "cache", cache_bytes=limit)
    split.close()
    with open_stream({"all": sets[1].uri}, 8, 0, cache=tmp_path / "cache", cache_bytes=limit) as stream:
        stream.wait_until_filled()
        assert not split.entry.path.exists()
    first.close()


def test_of_many_that_open_at_once_only_as_many_as_fit_succeed(tmp_path: Path) -> None:
    folders = [ShardFolder.open(make_set(f"{tmp_path}/set-{n}", 100, 50, seed=n, size_px=16).uri) for n in range(6)]
    limit = 2 * 100 * (16 * 16 * 3 + 16) + 40_000
    opened: list[InMemorySplit] = []
    refused: list[str] = []

    def open_one(folder: ShardFolder) -> None:
        try:
            opened.append(InMemorySplit(folder, "train", Cache(tmp_path / "cache", limit), "fail"))
        except BadInput as error:
            refused.append(str(error))

    threads = [threading.Thread(target=open_one, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), len(refused)) == (2, 4)
    for split in opened:
        split.close()


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o722])
def test_a_cache_that_others_could_change_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(BadInput, match=r"writable by other users.*set ADAINF_CACHE to a new folder in it"):
        Cache(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BadInput, match="writable by other users"):
        Cache(tmp_path / "link")
    inside = Cache(folder / "own").folder
    assert inside.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    Cache(folder)


def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(BadInput, match=f"belongs to user {owner}, who could change"):
        Cache(tmp_path)
