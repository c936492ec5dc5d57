"""A cache of encoded images gives the batches of a cache of pixels, and takes the bytes of the shards."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from sklearn.datasets import load_sample_images

from adainf.errors import BadInput
from adainf.pipeline.progress import Reporter
from adainf.shards import Batch, Source, Stream, open_stream
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.encoded import EncodedSplit
from adainf.shards.loader.source import decoded_bytes, encoded_bytes, mode_of
from adainf.sources.indexing import index_tars
from tests.shards.sets import take

SHARDS, SHARD_IMAGES = 6, 10
PHOTOS: list[np.ndarray] = load_sample_images().images


def photo(number: int) -> np.ndarray:
    """A region of a photo, 70 to 130 px."""
    chance = np.random.default_rng(number)
    height, width = chance.integers(70, 131, 2)
    top, left = (int(chance.integers(0, most)) for most in (427 - height, 640 - width))
    return PHOTOS[number % 2][top : top + height, left : left + width]


def encoded(number: int) -> tuple[str, bytes]:
    """The suffix and the bytes: mostly JPEG, of all kinds."""
    kind: dict[str, Any] = (
        {"format": "JPEG", "quality": 90},
        {"format": "JPEG", "progressive": True},
        {"format": "PNG"},
        {"format": "WEBP"},
        {"format": "JPEG", "quality": 60},
    )[number % 5]
    image, buffer = Image.fromarray(photo(number)), io.BytesIO()
    (image.convert("L") if number % 7 == 3 else image.convert("CMYK") if number % 10 == 4 else image).save(buffer, **kind)
    return kind["format"].lower().replace("jpeg", "jpg"), buffer.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sets") / "photos"
    folder.mkdir()
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"{shard:02d}.tar")) as writer:
            for number in range(shard * SHARD_IMAGES, (shard + 1) * SHARD_IMAGES):
                suffix, data = encoded(number)
                writer.write({"__key__": f"{number:03d}", suffix: data, "cls": number % 3})
    index_tars(str(folder), Reporter())
    return str(folder)


def copied(photos: str, to: Path) -> Path:
    to.mkdir()
    for path in (path for path in Path(photos).iterdir() if path.is_file()):
        (to / path.name).write_bytes(path.read_bytes())
    return to


def opened(uri: str | Path, cache: Path, cached: Any = "encoded", **options: Any) -> Stream:
    sources = {"all": Source(str(uri), weight=2)} | options.pop("more", {})
    return open_stream(sources, options.pop("global_batch", 12), 0, size_px=48, cache=cache, cached=cached, **options)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        np.array_equal(a.images, b.images)
        and (a.labels.tolist(), a.indices.tolist(), a.sources.tolist())
        == (b.labels.tolist(), b.indices.tolist(), b.sources.tolist())
        for a, b in zip(one, other, strict=True)
    )


def test_batches_do_not_depend_on_what_is_cached(photos: str, tmp_path: Path) -> None:
    assert same(take(opened(photos, tmp_path / "a"), 12), take(opened(photos, tmp_path / "b", "decoded"), 12))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_any_number_of_processes_gets_the_same_batches(photos: str, tmp_path: Path, world: int) -> None:
    expected = take(opened(photos, tmp_path / "one"), 6)
    parts = [take(opened(photos, tmp_path / "shared", rank=rank, world=world), 6) for rank in range(world)]
    for step, batch in enumerate(expected):
        np.testing.assert_array_equal(batch.images, np.concatenate([part[step].images for part in parts]))
    with opened(photos, tmp_path / "shared") as stream:
        for _ in range(4):
            next(stream)
        state = stream.state_dict()
    with opened(photos, tmp_path / "new", rank=1, world=world) as resumed:
        resumed.load_state_dict(state)
        np.testing.assert_array_equal(next(resumed).images, parts[1][4].images)


def test_the_cache_takes_the_bytes_of_the_shards(photos: str, tmp_path: Path) -> None:
    with opened(photos, tmp_path / "cache") as stream:
        stream.wait_until_filled()
        used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache").rglob("*"))
    assert used <= 1.1 * encoded_bytes(ShardFolder.open(photos).split("train"))


def test_everything_can_be_held_in_memory(photos: str, tmp_path: Path) -> None:
    with opened(photos, tmp_path / "a") as ours, opened(photos, tmp_path / "b", "decoded") as reference:
        np.testing.assert_array_equal(ours.all_images()[0], reference.all_images()[0])
        np.testing.assert_array_equal(ours.all_labels()[0], reference.all_labels()[0])


def break_photos(folder: Path, numbers: list[int], intact: bool) -> None:
    """Make images undecodable: where `intact`, indexed again, so that all checksums match."""
    for number in numbers:
        path = folder / f"{number // SHARD_IMAGES:02d}.tar"
        index = json.loads((folder / f"{path.stem}.index.json").read_text())
        data, at = bytearray(path.read_bytes()), index["image_offsets"][number % SHARD_IMAGES]
        data[at + 2 : at + 40] = bytes(38)
        path.write_bytes(data)
    if intact:
        for path in (*folder.glob("*.json"), folder / "manifest.json"):
            path.unlink(missing_ok=True)
        index_tars(str(folder), Reporter())


@pytest.mark.parametrize("intact", [False, True], ids=["other bytes than indexed", "as indexed"])
def test_corrupt_images_are_replaced_as_in_a_cache_of_pixels(photos: str, tmp_path: Path, intact: bool) -> None:
    folder = copied(photos, tmp_path / "set")
    break_photos(folder, [19], intact)  # the last of its shard: the first replaces it
    found = []
    for cached in ("encoded", "decoded"):
        with opened(folder, tmp_path / cached, cached, damage="quarantine") as stream:
            batches = [next(stream) for _ in range(10)]
            found.append((batches, stream.damage))
    (ours, damage), (reference, expected) = found
    assert same(ours, reference)
    assert damage == expected
    assert [record.key for record in damage] == ["019"]
    assert 19 not in np.concatenate([batch.indices for batch in ours])
    with pytest.raises(BadInput, match=r"01\.tar.*restore or recreate the shard, or set damage: quarantine"):
        take(opened(folder, tmp_path / "encoded"), 10)


def test_too_many_corrupt_images_and_a_shard_without_any_intact_one_are_errors(photos: str, tmp_path: Path) -> None:
    folder = copied(photos, tmp_path / "several")
    break_photos(folder, [3, 4, 41], intact=True)
    with pytest.raises(BadInput, match="corrupt samples exceed the limit of 1 of 60"):
        take(opened(folder, tmp_path / "cache", damage="quarantine"), 10)
    folder = copied(photos, tmp_path / "all")
    break_photos(folder, list(range(20, 30)), intact=False)
    with pytest.raises(BadInput, match=r"02\.tar: all 10 samples are corrupt"):
        take(opened(folder, tmp_path / "cache", damage="quarantine"), 10)


def test_the_mode_follows_sizes_and_budget(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder.open(photos)
    assert mode_of(folder, "train", 48) == "decoded"  # below 1 GiB
    monkeypatch.setattr("adainf.shards.loader.source.SMALL_SET_BYTES", 0)
    assert mode_of(folder, "train", 48) == "decoded"  # not three times the bytes of the shards
    assert mode_of(folder, "train", 224) == "encoded"
    described = folder.split("train")
    assert decoded_bytes(folder, "train", 100) == 60 * 100 * 100 * 3 > encoded_bytes(described)
    monkeypatch.setattr("adainf.shards.loader.source.SMALL_SET_BYTES", 1 << 30)
    limit = encoded_bytes(described) * 11 // 10
    options: dict[str, Any] = {"size_px": 100, "cache": tmp_path / "cache", "cache_bytes": limit}
    with open_stream({"all": photos}, 12, 0, **options) as stream:  # the pixels do not fit, the encoded images do
        assert [type(split) for split in stream._fetcher.splits] == [EncodedSplit]
        next(stream)
    for cached in ("decoded", "encoded"):
        with pytest.raises(BadInput, match=f"its {cached} images need"):
            open_stream({"all": photos}, 12, 0, **options | {"cached": cached, "cache_bytes": 1000})


@pytest.mark.parametrize(("options", "message"), [({"cached": "both"}, "set it to auto"), ({"window_shards": 2}, "leave out")])
def test_invalid_modes_are_refused(photos: str, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_stream({"all": photos}, 12, 0, size_px=48, cache=tmp_path, **{"cached": "encoded", **options})


CHILD = """
import sys
from adainf.shards import Source, open_stream
options = {"size_px": 48, "cache": sys.argv[2], "cached": "encoded"}
for batch in open_stream({"all": Source(sys.argv[1], weight=2)}, 12, 0, **options):
    print(batch.step, flush=True)
"""


@pytest.mark.process
def test_a_killed_process_leaves_a_usable_cache(photos: str, tmp_path: Path) -> None:
    for steps in (1, 4):
        command = [sys.executable, "-c", CHILD, photos, str(tmp_path / "cache")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert child.stdout is not None
        for _ in range(steps):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert same(take(opened(photos, tmp_path / "cache"), 10), take(opened(photos, tmp_path / "new"), 10))


def test_the_first_batch_does_not_wait_for_all_shards(photos: str, tmp_path: Path) -> None:
    """It is read by ranges, so that corruption elsewhere in the shards does not matter yet."""
    folder = copied(photos, tmp_path / "set")
    with opened(photos, tmp_path / "filled", global_batch=4) as stream:
        stream.wait_until_filled()
        expected = next(stream)
    break_photos(folder, [number for number in range(60) if number not in expected.indices], intact=False)
    with opened(folder, tmp_path / "ranges", global_batch=4, prefetch_batches=0) as stream:
        assert same([next(stream)], [expected])
        with pytest.raises(BadInput, match="SHA-256 does not match"):
            stream.wait_until_filled()
