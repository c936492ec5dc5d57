"""Shards are WebDataset shards: stock webdataset reads ours, we read its, and our bytes never change."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from adainf.pipeline.artifacts import Run
from adainf.shards.format import png
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import decode_image, encode_stored_png
from adainf.shards.format.tar import Sample, encode_shard
from adainf.shards.format.writer import pixel_facts, write_split
from adainf.shards.loader.read_all import read_split
from tests.shards.tars import read_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
LABELS = [3, 0, None, 12, 3]
SAMPLES = [Sample(image, label) for image, label in zip(IMAGES, LABELS, strict=True)]


def write(run: Run) -> ShardFolder:
    split = write_split(run, "real", "train", 5, 2, lambda indices: [SAMPLES[index] for index in indices])
    return ShardFolder(run, "real", ShardSet(height_px=6, width_px=7, splits={"train": split}), digest="")


def test_stock_webdataset_reads_our_shards(tmp_path: Path) -> None:
    write(Run(str(tmp_path)))
    urls = [str(tmp_path / "real" / f"train-{number:06d}.tar") for number in range(3)]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    read = list(dataset)
    assert [sample["__key__"] for sample in read] == [f"{number:06d}" for number in range(5)]
    assert (np.stack([sample["png"] for sample in read]) == IMAGES).all()
    assert [sample.get("cls") for sample in read] == LABELS


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        for number, (image, label, _) in enumerate(SAMPLES):
            sample = {"__key__": f"folder.d/{number}", "png": image, "json": {"number": number}}
            writer.write(sample if label is None else {**sample, "cls": label})
    read = read_tar((tmp_path / "x.tar").read_bytes())
    assert (np.stack([decode_image(sample.image) for sample in read]) == IMAGES).all()
    assert [sample.label for sample in read] == LABELS
    assert read[4].key == "folder.d/4"


def test_the_bytes_of_a_shard_never_change() -> None:
    """A change here changes every artifact: it needs a new schema version, not a new number in this test."""
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    shard = encode_shard(41, [Sample(image, 7), Sample(255 - image, None)])
    facts = pixel_facts([image, 255 - image])
    assert facts is not None
    assert hashlib.sha256(shard).hexdigest() == "d39d5eb6e6904d77e82a0ee872db6ab6e1616eb5859ca56b3db1788286d3f517"
    assert facts.sha256 == "9175570253f98526a91d2b1cd0f06a11ed502b1e79ac00cfe7ab539de1d95547"
    assert hashlib.sha256(image.tobytes() + (255 - image).tobytes()).hexdigest() == facts.sha256
    assert len(shard) % 10_240 == 0


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    runs = [Run(str(tmp_path / name)) for name in "ab"]
    for run in runs:
        write(run)
    a, b = ({info.key: run.store.get(info.key) for info in run.store.list()} for run in runs)
    assert len(a) == 6
    assert a == b


def test_the_members_of_a_shard_hold_no_metadata_of_the_writer() -> None:
    with tarfile.open(fileobj=io.BytesIO(encode_shard(0, SAMPLES))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:3]] == ["000000.png", "000000.cls", "000001.png"]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type) == (0o644, tarfile.REGTYPE)


def test_channel_order_is_rgb() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    shard = encode_shard(0, [Sample(red, None)])
    facts = pixel_facts([red])
    assert facts is not None
    assert facts.channel_sums == (255 * 16, 0, 0)
    (sample,) = read_tar(shard)
    with Image.open(io.BytesIO(sample.image)) as image:  # by another reader
        assert image.mode == "RGB"
        assert image.getpixel((2, 2)) == (255, 0, 0)
    assert (decode_image(sample.image) == red).all()


def test_the_index_locates_every_image_for_one_range_read(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    folder = write(run)
    at = 0
    for shard in folder.split("train").shards:
        index = folder.index(shard)
        assert index.pixels is not None
        assert (index.pixels.height_px, index.pixels.width_px) == (6, 7)
        for offset, size, crc32, label in zip(
            index.image_offsets, index.image_sizes_bytes, index.image_crc32s, index.labels, strict=True
        ):
            image = run.store.get_range(folder.key(index.tar.key), offset, size)
            assert (decode_image(image) == IMAGES[at]).all()
            assert zlib.crc32(image) == crc32
            assert label == (-1 if LABELS[at] is None else LABELS[at])
            at += 1
    assert at == 5


def test_a_split_is_read_back_and_described(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    folder = write(run)
    images, labels = read_split(folder, "train")
    assert (images == IMAGES).all()
    assert labels.tolist() == [3, 0, -1, 12, 3]
    split = folder.split("train")
    assert (split.images, split.labelled, [shard.images for shard in split.shards]) == (5, False, [2, 2, 1])
    assert split.channel_means == pytest.approx(IMAGES.mean(axis=(0, 1, 2)), abs=1e-4)
    assert split.channel_stds == pytest.approx(IMAGES.std(axis=(0, 1, 2)), abs=1e-4)


# ------------------------------------------------------------------------------------------------- existing tars


def foreign(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def member(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def test_files_that_webdataset_skips_are_skipped() -> None:
    data = foreign(
        member("part", tarfile.DIRTYPE),
        ("part/._1.png", b"of a Mac"),
        ("part/README", b"text"),
        ("part/1.PNG", b"one"),
        ("part/1.cls", b" 5\n"),
        ("part/2.jpg", b"two"),
    )
    assert [tuple(sample) for sample in read_tar(data)] == [("part/1", b"one", 5, None), ("part/2", b"two", None, None)]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.png", b"a"), ("1.png", b"b")], "sample 1 has .png twice"),
        ([("1.png", b"a"), ("1.jpg", b"b")], r"sample 1 has 2 images \(.jpg, .png\)"),
        ([("1.cls", b"7")], r"sample 1 has 0 images \(.cls\)"),
        ([("1.png", b"a"), ("1.cls", b"cat")], "sample 1: its label is 'cat', expected a class number"),
        ([("1.png", b"a"), ("1.txt", b"caf\xe9")], r"sample 1: its .txt is not UTF-8 \(at byte 3\)"),
        ([member("1.png", tarfile.LNKTYPE)], "1.png is not a regular file"),
        ([member("1.png", tarfile.SYMTYPE)], "1.png is not a regular file"),
    ],
)
def test_invalid_samples(members: list[tuple[str, bytes] | tarfile.TarInfo], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_tar(foreign(*members))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (4, 4, 1)])
def test_only_rgb_images_are_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8 H x W x 3"):
        encode_stored_png(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_the_fast_decoder_agrees_with_pillow(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It decodes only plain RGB; Pillow decodes all others, and reports corrupt data."""
    assert png._fast_decoder() is not None, "kornia-rs is missing: pip install -e '.[test]' brings it"
    calls = []
    decode = png._fast_decoder()
    monkeypatch.setattr(png, "_fast_decoder", lambda: lambda *given: calls.append(given) or decode(*given))
    for shape in ((1, 1), (7, 5), (40, 64)):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
        assert (decode_image(buffer.getvalue(), verified=True) == decode_image(buffer.getvalue())).all()
        with pytest.raises(ValueError, match="cannot decode the image"):
            decode_image(buffer.getvalue()[: len(buffer.getvalue()) // 2], verified=True)
    assert bool(calls) == (mode == "RGB")
