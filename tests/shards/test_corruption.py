"""Corruption is never silent: for every kind, the stream raises an error or records what it replaced."""

from __future__ import annotations

import io
import json
import random
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from adainf.errors import BadInput, StageFailed
from adainf.pipeline.progress import Reporter
from adainf.shards import Source, open_stream
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES, decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import index_key
from adainf.shards.format.verify import verify
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.in_memory import InMemorySplit
from adainf.shards.loader.windowed import WINDOWS_KEPT
from adainf.sources.indexing import index_tars
from tests.shards.sets import Made, make_set, take
from tests.tiny import forge

BLOCK = 512


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_set(f"{tmp_path}/set", 24, 8)


def tar(made: Made, number: int = 1) -> Path:
    return made.path / f"train-{number:06d}.tar"


def offset(made: Made, number: int, sample: int) -> int:
    """Where the image of a sample begins in its tar."""
    return int(json.loads((made.path / index_key(tar(made, number).name)).read_text())["image_offsets"][sample])


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def zero(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + BLOCK] = bytes(BLOCK)
    path.write_bytes(data)


KINDS: dict[str, Callable[[Made], object]] = {
    "truncated between members": lambda made: truncate(tar(made), offset(made, 1, 3) - BLOCK),
    "truncated inside a header": lambda made: truncate(tar(made), offset(made, 1, 3) - BLOCK // 2),
    "truncated inside an image": lambda made: truncate(tar(made), offset(made, 1, 3) + 30),
    "bit flip in a header": lambda made: flip(tar(made), offset(made, 1, 3) - BLOCK + 3),
    "bit flip in an image": lambda made: flip(tar(made), offset(made, 1, 3) + 60),
    "512 zeros inside": lambda made: zero(tar(made), offset(made, 1, 3) - BLOCK),
    "replaced by another shard": lambda made: tar(made).write_bytes(tar(made, 0).read_bytes()),
    "missing": lambda made: tar(made).unlink(),
    "trailing bytes": lambda made: tar(made).write_bytes(tar(made).read_bytes() + b"more"),
    "empty": lambda made: tar(made).write_bytes(b""),
}


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_corruption_is_an_error_that_names_the_shard(made: Made, kind: str, window_shards: int | None) -> None:
    KINDS[kind](made)
    with pytest.raises(BadInput, match=r"train-000001\.tar"):
        take(open_stream({"set": made.uri}, 8, 0, window_shards=window_shards), 3)


def test_random_corruption_is_detected(made: Made) -> None:
    """400 truncations and 400 bit flips, with both policies: never silent, and the images returned are always right."""
    folder = ShardFolder.open(made.uri)
    shard = folder.split("train").shard(1)
    path, intact = tar(made), tar(made).read_bytes()
    right = made.images[8:16]
    chance = random.Random(0)
    kept = 0
    for _ in range(400):
        path.write_bytes(intact[: chance.randrange(len(intact))])
        for policy in ("fail", "quarantine"):
            with pytest.raises(BadInput):
                decode_shard(folder, shard, policy, (4, 4))
    for _ in range(400):
        path.write_bytes(intact)
        flip(path, chance.randrange(len(intact)), chance.randrange(8))
        with pytest.raises(BadInput):
            decode_shard(folder, shard, "fail", (4, 4))
        found = decode_shard(folder, shard, "quarantine", (4, 4))
        assert len(found.corrupt) == 1  # a bit belongs to one image, or to none
        assert (np.asarray(found.images)[found.replacements] == right[found.replacements]).all()
        assert found.labels.tolist() == made.labels[8:16].tolist()
        kept += found.corrupt[0].key == ""
    assert 0 < kept < 400


def test_a_corrupt_sample_is_replaced_by_the_next_intact_one(made: Made, tmp_path: Path) -> None:
    flip(tar(made), offset(made, 1, 7) + 60)  # the last of its shard: the first one replaces it
    streams = [
        open_stream({"set": made.uri}, 24, 0, damage="quarantine", rank=rank, world=2, cache=tmp_path / f"node-{rank}")
        for rank in range(2)
    ]
    given: list[tuple[int, int]] = []
    for stream in streams:
        with stream:
            batch = next(stream)
            planned = stream.plan(0)[1]
            given += zip(planned.tolist(), batch.indices.tolist(), strict=True)
            assert (np.asarray(batch.images) == made.images[batch.indices]).all()
            stream.wait_until_filled()
            assert [sample.key for sample in stream.damage] == ["000015"]
            assert stream.damage[0].offset == offset(made, 1, 7)
            assert stream.damage[0].shard == "train-000001.tar"
    assert sorted(given) == [(index, 8 if index == 15 else index) for index in range(24)]


def test_corruption_is_recorded_beside_the_images(made: Made, tmp_path: Path) -> None:
    flip(tar(made), offset(made, 1, 2) + 60)
    with open_stream({"set": made.uri}, 8, 0, damage="quarantine", cache=tmp_path / "cache") as stream:
        stream.wait_until_filled()
    (record,) = (tmp_path / "cache").glob("*/quarantine.jsonl")
    assert json.loads(record.read_text()) == {
        "shard": "train-000001.tar",
        "key": "000010",
        "offset": offset(made, 1, 2),
        "reason": "CRC-32 does not match the index",
    }


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_a_cached_corruption_is_refused_by_another_policy(made: Made, window_shards: int | None, inside: bool) -> None:
    """The shard is cached already: the policy is checked again."""
    flip(tar(made), offset(made, 1, 2) + (60 if inside else -BLOCK + 3))
    take(open_stream({"set": made.uri}, 8, 0, damage="quarantine", window_shards=window_shards), 3)
    with pytest.raises(BadInput, match=r"train-000001\.tar: " + ("sample 000010" if inside else "corrupt outside")):
        take(open_stream({"set": made.uri}, 8, 0, window_shards=window_shards), 3)


def test_more_than_one_sample_of_a_thousand_is_too_many(made: Made) -> None:
    for sample in (2, 5):
        flip(tar(made), offset(made, 1, sample) + 60)
    with pytest.raises(BadInput, match="2 corrupt samples exceed the limit of 1 of 24"):
        take(open_stream({"set": made.uri}, 8, 0, damage="quarantine"), 3)


def test_a_shard_without_an_intact_sample_is_an_error(made: Made) -> None:
    for sample in range(8):
        flip(tar(made), offset(made, 1, sample) + 60)
    with pytest.raises(BadInput, match="all 8 samples are corrupt"):
        take(open_stream({"set": made.uri}, 8, 0, damage="quarantine"), 3)


def test_corruption_in_transit_is_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder.open(made.uri)
    monkeypatch.setattr(folder.run.store, "open", lambda key, **options: io.BufferedReader(io.BytesIO(b"torn")))
    found = decode_shard(folder, folder.split("train").shard(0), "fail", (4, 4))
    assert (np.asarray(found.images) == made.images[:8]).all()


def test_sets_with_shards_of_the_same_names_do_not_collide(tmp_path: Path) -> None:
    one, two = make_set(f"{tmp_path}/a/real", 20, 5, seed=1), make_set(f"{tmp_path}/b/real", 20, 5, seed=2)
    (batch,) = take(open_stream({"one": one.uri, "two": two.uri}, 40, 0), 1)
    for source, made in enumerate((one, two)):
        rows = batch.sources == source
        assert (np.asarray(batch.images)[rows] == made.images[batch.indices[rows]]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"tar_keys": ["../../secret.tar", "train-000001.tar", "train-000002.tar"]},
            r"names '\.\./\.\./secret\.tar', which is not a valid key",
        ),
        ({"tar_sizes_bytes": [-1, 1, 1]}, "a shard has a negative size"),
        ({"tar_keys": ["a.tar"]}, "the columns of its shards differ in length"),
        ({"images": 25}, "its shards do not hold 25 images"),
        ({"shard_images": [0, 12, 12]}, "its shards do not hold 24 images"),
        ({"tar_sha256s": None}, "tar_sha256s"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_an_error(made: Made, change: dict[str, Any], said: str) -> None:
    forge(made.path / "manifest.json", lambda body: body["content"]["splits"]["train"].update(change))
    with pytest.raises(BadInput, match=said):
        take(open_stream({"set": made.uri}, 8, 0), 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"content": {}}', "\x00"])
def test_an_invalid_manifest_is_an_error(made: Made, text: str) -> None:
    (made.path / "manifest.json").write_text(text)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        open_stream({"set": made.uri}, 8, 0)


# --------------------------------------------------------------------------------------------------- existing tars


def foreign(folder: Path, sizes: list[tuple[int, int]] | None = None, suffix: str = "png") -> list[np.ndarray]:
    """Three tars of five images each, by webdataset's own writer."""
    chance = np.random.default_rng(3)
    images = [chance.integers(0, 256, (*(sizes or [(6, 5)])[n % len(sizes or [1])], 3), dtype=np.uint8) for n in range(15)]
    folder.mkdir(exist_ok=True)
    for shard in range(3):
        with webdataset.TarWriter(str(folder / f"{shard}.tar")) as writer:
            for number in range(5 * shard, 5 * shard + 5):
                buffer = io.BytesIO()
                if suffix == "npy":
                    np.save(buffer, images[number])
                else:
                    Image.fromarray(images[number]).save(buffer, suffix)
                writer.write({"__key__": f"part/{number:03d}", suffix: buffer.getvalue(), "cls": number % 4})
    return images


@pytest.mark.parametrize("suffix", ["png", "npy", "bmp"])
def test_a_folder_of_tars_is_indexed_in_place(tmp_path: Path, suffix: str) -> None:
    images = foreign(tmp_path / "tars", suffix=suffix)
    before = {path.name: path.read_bytes() for path in (tmp_path / "tars").iterdir()}
    content = index_tars(str(tmp_path / "tars"), Reporter())
    assert (content.height_px, content.width_px, content.classes) == (6, 5, ["0", "1", "2", "3"])
    assert content.splits["train"].channel_means == pytest.approx(np.stack(images).mean((0, 1, 2)), abs=1e-4)
    assert {name: (tmp_path / "tars" / name).read_bytes() for name in before} == before
    (batch,) = take(open_stream({"all": f"{tmp_path}/tars"}, 15, 0), 1)
    assert (np.asarray(batch.images) == np.stack(images)[batch.indices]).all()
    assert batch.labels.tolist() == (batch.indices % 4).tolist()
    verify(f"{tmp_path}/tars", Reporter())


def test_images_of_several_sizes_come_through_windows(tmp_path: Path) -> None:
    images = foreign(tmp_path / "tars", sizes=[(6, 5), (3, 9), (8, 8)])
    index_tars(str(tmp_path / "tars"), Reporter())
    with pytest.raises(BadInput, match="images of several sizes; set size_px"):
        open_stream({"all": f"{tmp_path}/tars"}, 15, 0)
    (batch,) = take(open_stream({"all": f"{tmp_path}/tars"}, 15, 0, window_shards=3), 1)
    assert sorted(batch.indices) == list(range(15))
    assert all((image == images[index]).all() for image, index in zip(batch.images, batch.indices, strict=True))
    (batch,) = take(open_stream({"all": f"{tmp_path}/tars"}, 15, 0, size_px=4), 1)
    assert np.asarray(batch.images).shape == (15, 4, 4, 3)


def test_indexed_again_it_is_the_same_and_another_set_is_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "tars")
    first = index_tars(str(tmp_path / "tars"), Reporter())
    assert index_tars(str(tmp_path / "tars"), Reporter()) == first
    (tmp_path / "tars" / "2.tar").unlink()
    with pytest.raises(BadInput, match=r"manifest\.json belongs to another set"):
        index_tars(str(tmp_path / "tars"), Reporter())


def test_an_undecodable_image_is_reported_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = foreign(tmp_path / "tars")
    with webdataset.TarWriter(str(tmp_path / "tars" / "3.tar")) as writer:
        writer.write({"__key__": "bad", "png": b"\x89PNG no image"})
        writer.write({"__key__": "good", "png": images[0]})
    for _ in range(2):  # the second time from the existing indexes
        index_tars(str(tmp_path / "tars"), Reporter())
        reported = capsys.readouterr().out
        assert "3.tar: sample bad: cannot decode the image" in reported
        assert "1 of them corrupt: a stream of them needs damage: quarantine" in reported
    with pytest.raises(BadInput, match=r"3\.tar: sample bad"):
        take(open_stream({"all": f"{tmp_path}/tars"}, 17, 0), 1)
    (batch,) = take(open_stream({"all": f"{tmp_path}/tars"}, 17, 0, damage="quarantine"), 1)
    assert sorted(batch.indices) == [*range(15), 16, 16]


def test_files_of_one_sample_that_are_not_consecutive(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "x.tar", "w") as archive:
        for name in ("1.png", "2.png", "1.png"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(BadInput, match=r"x\.tar: sample 1 appears twice, with other samples in between"):
        index_tars(str(tmp_path / "tars"), Reporter())


def test_verify_reports_all_corruption(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    flip(tar(made, 0), offset(made, 0, 3) + 60)
    truncate(tar(made, 2), 5000)
    with pytest.raises(StageFailed, match=r"2 of 3 shards are corrupt \(listed above\)"):
        verify(made.uri, Reporter())
    reported = capsys.readouterr().out
    assert "train-000000.tar: sample 000003: CRC-32 does not match the index" in reported
    assert "train-000002.tar is truncated: 5,000 bytes" in reported


# -------------------------------------------------------------------------------------------------------------- the cache


def test_unused_entries_are_evicted_and_used_ones_stay(tmp_path: Path) -> None:
    sets = [ShardFolder.open(make_set(f"{tmp_path}/set-{n}", 100, 50, seed=n, size_px=16).uri) for n in range(3)]
    one = 100 * (16 * 16 * 3 + 16)
    cache = Cache(tmp_path / "cache", limit_bytes=2 * one + 40_000)
    splits = [InMemorySplit(folder, "train", cache, "fail") for folder in sets[:2]]
    for split in splits:
        for number in range(2):
            split.prefetch(number)
    with pytest.raises(BadInput, match=r"has [\d,]+ available"):
        InMemorySplit(sets[2], "train", cache, "fail")
    splits[1].close()
    third = InMemorySplit(sets[2], "train", cache, "fail")
    assert splits[0].entry.path.exists()
    assert not splits[1].entry.path.exists()
    for split in (splits[0], third):
        split.close()


def test_a_windowed_set_keeps_only_some_windows_on_disk(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/set", 400, 10)
    with open_stream({"set": made.uri}, 16, 0, window_shards=2, cache=tmp_path / "cache") as stream:
        most = 0
        for batch, _ in zip(stream, range(60), strict=False):
            assert (np.asarray(batch.images) == made.images[batch.indices]).all()
            most = max(most, len(list((tmp_path / "cache").glob("*/*.shard"))))
    assert most <= WINDOWS_KEPT * 2 + MAX_CONCURRENT_FETCHES  # those published just before the oldest are evicted


def test_a_changed_set_is_not_read_from_the_cache(tmp_path: Path) -> None:
    """Same address, same names: the cache must not return the old pixels."""
    first = make_set(f"{tmp_path}/set", 20, 10, seed=1)
    take(open_stream({"set": first.uri}, 20, 0), 1)
    for path in first.path.iterdir():
        path.unlink()
    second = make_set(f"{tmp_path}/set", 20, 10, seed=2)
    (batch,) = take(open_stream({"set": Source(second.uri)}, 20, 0), 1)
    assert (np.asarray(batch.images) == second.images[batch.indices]).all()


def test_webdataset_ignores_corruption_silently(made: Made) -> None:
    """The reason for a scanner of our own: webdataset loses half a shard silently. If this fails, it has been fixed."""
    KINDS["bit flip in a header"](made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(webdataset.WebDataset(str(tar(made)), shardshuffle=False))
    assert len(found) < 8
