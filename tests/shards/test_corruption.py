"""Damage is never silent: whatever is done to a shard, the stream ends with a sentence or has written down what it left out."""

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
from adainf.shards.format.decode import decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import index_key
from adainf.shards.format.verify import verify
from adainf.shards.loader.cache import FETCHES_AT_ONCE, Cache
from adainf.shards.loader.in_memory import WholeSplit
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


def turn(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def zero(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + BLOCK] = bytes(BLOCK)
    path.write_bytes(data)


KINDS: dict[str, Callable[[Made], object]] = {
    "cut between members": lambda made: cut(tar(made), offset(made, 1, 3) - BLOCK),
    "cut inside a header": lambda made: cut(tar(made), offset(made, 1, 3) - BLOCK // 2),
    "cut inside an image": lambda made: cut(tar(made), offset(made, 1, 3) + 30),
    "a bit of a header": lambda made: turn(tar(made), offset(made, 1, 3) - BLOCK + 3),
    "a bit of an image": lambda made: turn(tar(made), offset(made, 1, 3) + 60),
    "512 zeros inside": lambda made: zero(tar(made), offset(made, 1, 3) - BLOCK),
    "another shard in its place": lambda made: tar(made).write_bytes(tar(made, 0).read_bytes()),
    "gone": lambda made: tar(made).unlink(),
    "bytes behind it": lambda made: tar(made).write_bytes(tar(made).read_bytes() + b"more"),
    "empty": lambda made: tar(made).write_bytes(b""),
}


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_is_a_sentence_that_names_the_shard(made: Made, kind: str, window_shards: int | None) -> None:
    KINDS[kind](made)
    with pytest.raises(BadInput, match=r"train-000001\.tar"):
        take(open_stream({"set": made.uri}, 8, 0, window_shards=window_shards), 3)


def test_the_verdict_on_random_damage(made: Made) -> None:
    """400 cuts and 400 turned bits, against both policies: never silent, and what is given out is always right."""
    folder = ShardFolder.open(made.uri)
    shard = folder.split("train").shard(1)
    path, whole = tar(made), tar(made).read_bytes()
    right = made.images[8:16]
    chance = random.Random(0)
    kept = 0
    for _ in range(400):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        for policy in ("fail", "quarantine"):
            with pytest.raises(BadInput):
                decode_shard(folder, shard, policy, (4, 4))
    for _ in range(400):
        path.write_bytes(whole)
        turn(path, chance.randrange(len(whole)), chance.randrange(8))
        with pytest.raises(BadInput):
            decode_shard(folder, shard, "fail", (4, 4))
        found = decode_shard(folder, shard, "quarantine", (4, 4))
        assert len(found.damaged) == 1  # one bit is of one image, or of none
        assert (np.asarray(found.images)[found.stand_ins] == right[found.stand_ins]).all()
        assert found.labels.tolist() == made.labels[8:16].tolist()
        kept += found.damaged[0].key == ""
    assert 0 < kept < 400


def test_a_damaged_sample_has_the_next_whole_one_in_its_place(made: Made, tmp_path: Path) -> None:
    turn(tar(made), offset(made, 1, 7) + 60)  # the last of its shard: the first one stands in
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
            assert [damage.key for damage in stream.damage] == ["000015"]
            assert stream.damage[0].offset == offset(made, 1, 7)
            assert stream.damage[0].shard == "train-000001.tar"
    assert sorted(given) == [(index, 8 if index == 15 else index) for index in range(24)]


def test_the_damage_is_written_down_beside_the_images(made: Made, tmp_path: Path) -> None:
    turn(tar(made), offset(made, 1, 2) + 60)
    with open_stream({"set": made.uri}, 8, 0, damage="quarantine", cache=tmp_path / "cache") as stream:
        stream.wait_until_filled()
    (record,) = (tmp_path / "cache").glob("*/quarantine.jsonl")
    assert json.loads(record.read_text()) == {
        "shard": "train-000001.tar",
        "key": "000010",
        "offset": offset(made, 1, 2),
        "reason": "its bytes are not those of its index",
    }


@pytest.mark.parametrize("window_shards", [None, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_what_one_stream_put_up_with_another_refuses(made: Made, window_shards: int | None, inside: bool) -> None:
    """The cache has the shard already: the policy is asked again."""
    turn(tar(made), offset(made, 1, 2) + (60 if inside else -BLOCK + 3))
    take(open_stream({"set": made.uri}, 8, 0, damage="quarantine", window_shards=window_shards), 3)
    with pytest.raises(BadInput, match=r"train-000001\.tar: " + ("sample 000010" if inside else "damaged outside")):
        take(open_stream({"set": made.uri}, 8, 0, window_shards=window_shards), 3)


def test_more_than_one_sample_of_a_thousand_is_too_many(made: Made) -> None:
    for sample in (2, 5):
        turn(tar(made), offset(made, 1, sample) + 60)
    with pytest.raises(BadInput, match="2 damaged samples, more than the 1 of 24"):
        take(open_stream({"set": made.uri}, 8, 0, damage="quarantine"), 3)


def test_a_shard_without_a_whole_sample_is_an_error(made: Made) -> None:
    for sample in range(8):
        turn(tar(made), offset(made, 1, sample) + 60)
    with pytest.raises(BadInput, match="none of its 8 samples is whole"):
        take(open_stream({"set": made.uri}, 8, 0, damage="quarantine"), 3)


def test_damage_on_the_way_is_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder.open(made.uri)
    monkeypatch.setattr(folder.run.store, "open", lambda key, **options: io.BufferedReader(io.BytesIO(b"torn")))
    found = decode_shard(folder, folder.split("train").shard(0), "fail", (4, 4))
    assert (np.asarray(found.images) == made.images[:8]).all()


def test_two_sets_with_shards_of_the_same_names_never_meet(tmp_path: Path) -> None:
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
            r"names '\.\./\.\./secret\.tar', which is no key",
        ),
        ({"tar_sizes_bytes": [-1, 1, 1]}, "a shard of it has a negative size"),
        ({"tar_keys": ["a.tar"]}, "the columns of its shards differ in length"),
        ({"images": 25}, "its shards do not hold 25 images"),
        ({"shard_images": [0, 12, 12]}, "its shards do not hold 24 images"),
        ({"tar_sha256s": None}, "tar_sha256s"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_a_sentence(made: Made, change: dict[str, Any], said: str) -> None:
    forge(made.path / "manifest.json", lambda body: body["content"]["splits"]["train"].update(change))
    with pytest.raises(BadInput, match=said):
        take(open_stream({"set": made.uri}, 8, 0), 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"content": {}}', "\x00"])
def test_a_manifest_that_is_none_is_a_sentence(made: Made, text: str) -> None:
    (made.path / "manifest.json").write_text(text)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        open_stream({"set": made.uri}, 8, 0)


# --------------------------------------------------------------------------------------------------- tars of other people


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
def test_a_folder_of_tars_is_indexed_where_it_lies(tmp_path: Path, suffix: str) -> None:
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
    with pytest.raises(BadInput, match=r"manifest\.json is that of another set"):
        index_tars(str(tmp_path / "tars"), Reporter())


def test_an_undecodable_image_is_told_of_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = foreign(tmp_path / "tars")
    with webdataset.TarWriter(str(tmp_path / "tars" / "3.tar")) as writer:
        writer.write({"__key__": "bad", "png": b"\x89PNG no image"})
        writer.write({"__key__": "good", "png": images[0]})
    for _ in range(2):  # the second time from what is there
        index_tars(str(tmp_path / "tars"), Reporter())
        told = capsys.readouterr().out
        assert "3.tar: sample bad: not a whole image" in told
        assert "1 of them damaged: a stream of them needs damage: quarantine" in told
    with pytest.raises(BadInput, match=r"3\.tar: sample bad"):
        take(open_stream({"all": f"{tmp_path}/tars"}, 17, 0), 1)
    (batch,) = take(open_stream({"all": f"{tmp_path}/tars"}, 17, 0, damage="quarantine"), 1)
    assert sorted(batch.indices) == [*range(15), 16, 16]


def test_files_of_one_sample_that_are_no_neighbours(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "x.tar", "w") as archive:
        for name in ("1.png", "2.png", "1.png"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(BadInput, match=r"x\.tar: sample 1 comes twice, with others between"):
        index_tars(str(tmp_path / "tars"), Reporter())


def test_verify_tells_of_all_that_is_damaged(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    turn(tar(made, 0), offset(made, 0, 3) + 60)
    cut(tar(made, 2), 5000)
    with pytest.raises(StageFailed, match="2 of 3 shards are damaged, as told above"):
        verify(made.uri, Reporter())
    told = capsys.readouterr().out
    assert "train-000000.tar: sample 000003: its bytes are not those of its index" in told
    assert "train-000002.tar is cut: 5,000 bytes" in told


# -------------------------------------------------------------------------------------------------------------- the cache


def test_what_nobody_uses_makes_room_and_what_is_used_stays(tmp_path: Path) -> None:
    sets = [ShardFolder.open(make_set(f"{tmp_path}/set-{n}", 100, 50, seed=n, size_px=16).uri) for n in range(3)]
    one = 100 * (16 * 16 * 3 + 16)
    cache = Cache(tmp_path / "cache", limit_bytes=2 * one + 40_000)
    splits = [WholeSplit(folder, "train", cache, "fail") for folder in sets[:2]]
    for split in splits:
        for number in range(2):
            split.fill(number)
    with pytest.raises(BadInput, match="has room for"):
        WholeSplit(sets[2], "train", cache, "fail")
    splits[1].close()
    third = WholeSplit(sets[2], "train", cache, "fail")
    assert splits[0].entry.path.exists()
    assert not splits[1].entry.path.exists()
    for split in (splits[0], third):
        split.close()


def test_a_windowed_set_takes_some_windows_of_the_disk(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/set", 400, 10)
    with open_stream({"set": made.uri}, 16, 0, window_shards=2, cache=tmp_path / "cache") as stream:
        most = 0
        for batch, _ in zip(stream, range(60), strict=False):
            assert (np.asarray(batch.images) == made.images[batch.indices]).all()
            most = max(most, len(list((tmp_path / "cache").glob("*/*.shard"))))
    assert most <= WINDOWS_KEPT * 2 + FETCHES_AT_ONCE  # those that are published just before the oldest go


def test_a_set_that_changed_is_another_one(tmp_path: Path) -> None:
    """Same address, same names: the cache must not give the old pixels."""
    first = make_set(f"{tmp_path}/set", 20, 10, seed=1)
    take(open_stream({"set": first.uri}, 20, 0), 1)
    for path in first.path.iterdir():
        path.unlink()
    second = make_set(f"{tmp_path}/set", 20, 10, seed=2)
    (batch,) = take(open_stream({"set": Source(second.uri)}, 20, 0), 1)
    assert (np.asarray(batch.images) == second.images[batch.indices]).all()


def test_webdataset_itself_is_silent_where_we_are_not(made: Made) -> None:
    """Why we do not train from its pipeline: half a shard is gone and it says nothing. If this fails, it has been mended."""
    KINDS["a bit of a header"](made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(webdataset.WebDataset(str(tar(made)), shardshuffle=False))
    assert len(found) < 8
