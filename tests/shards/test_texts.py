"""Captions: from existing tars through ingest or index to `read_texts`; sets without captions keep their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe, Shards
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.tar import Sample
from adainf.shards.format.verify import verify
from adainf.shards.format.writer import write_split
from adainf.shards.loader.read_all import read_split, read_texts
from adainf.sources.indexing import index_tars
from adainf.sources.resize import Selection
from adainf.sources.tars import open_tars
from adainf.stages.ingest import ingest

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
WRITTEN = ["a cat", " une vache\r\nqui rit\n", "猫 \U0001f408", "\ttwo\n\nlines ", "e\u0301", '"}, {', "\\u0041\0"]
TEXTS = ["a cat", "une vache\r\nqui rit", "猫 \U0001f408", "two\n\nlines", "e\u0301", '"}, {', "\\u0041\0"]


def write_tars(folder: Path, texts: list[str] | None = None) -> Path:
    """Two tars, written by webdataset."""
    folder.mkdir(exist_ok=True)
    for name, numbers in (("a", range(4)), ("b", range(4, 7))):
        with webdataset.TarWriter(str(folder / f"{name}.tar")) as writer:
            for number in numbers:
                sample = {"__key__": f"{number}", "png": IMAGES[number], "cls": number % 2}
                writer.write(sample if texts is None else {**sample, "txt": texts[number]})
    return folder


def ingested(path: Path) -> ShardFolder:
    real = {"kind": "shards", "path": str(path), "shard_images": 2, "test_fraction": 0.3, "validation_fraction": 0}
    generator = {"kind": "diffusion", "steps": 1}
    recipe = {"name": "test", "real": real, "generator": generator, "generate": {"images": 1}, "arms": ["none"]}
    run = Run(f"{path}-run")
    return ShardFolder.of(run, "real", ingest(Recipe.model_validate(recipe), run, Reporter()))


def indexed(path: Path) -> ShardFolder:
    index_tars(str(path), Reporter())
    return ShardFolder.open(str(path))


def test_captions_are_ingested_with_their_images(tmp_path: Path) -> None:
    folder = ingested(write_tars(tmp_path / "tars", WRITTEN))
    place = {image.tobytes(): index for index, image in enumerate(IMAGES)}
    seen = 0
    for split in ("train", "test"):
        expected = [TEXTS[place[image.tobytes()]] for image in read_split(folder, split).images]
        assert read_texts(folder, split) == expected
        tars = [folder.locate(key) for key in folder.split(split).tar_keys]
        stock = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("rgb8")
        assert [sample["txt"] for sample in stock] == expected
        seen += len(expected)
    assert seen == 7
    assert read_texts(folder, "validation") == []


def test_imports_drop_labels_and_keep_captions(tmp_path: Path) -> None:
    images = open_tars(Shards(kind="shards", path=str(write_tars(tmp_path / "tars", WRITTEN)))).train
    selection = Selection(images, np.array([1, 6]), 4, 4, image_size_px=4, bgr=True, labelled=False)
    assert [(sample.label, sample.text) for sample in selection.take(range(2))] == [(None, TEXTS[1]), (None, TEXTS[6])]


def test_captions_are_indexed_in_place(tmp_path: Path) -> None:
    folder = indexed(write_tars(tmp_path / "tars", WRITTEN))
    assert read_texts(folder, "train") == TEXTS
    verify(folder.uri, Reporter())


@pytest.mark.parametrize("made", [ingested, indexed])
def test_an_empty_caption_becomes_none(tmp_path: Path, made: Callable[[Path], ShardFolder]) -> None:
    folder = made(write_tars(tmp_path / "tars", ["x", "x", "x", "x", "x", " \n", "x"]))
    texts = [text for split in folder.shards.splits.values() for shard in split.shards for text in folder.index(shard).texts]
    assert sorted(texts, key=str) == [None, *["x"] * 6]


def test_the_first_image_without_a_caption_is_named(tmp_path: Path) -> None:
    folder = indexed(write_tars(tmp_path / "tars", ["x", "x", "x", "x", "x", "", ""]))
    with pytest.raises(BadInput) as refused:
        read_texts(folder, "train")
    assert str(refused.value) == (
        f"{tmp_path}/tars/b.tar: sample 5 (image 5 of train) has no caption; add 5.txt (and one for every other image) to the "
        "tar, then ingest or index the tars again"
    )


def test_a_caption_that_is_not_utf_8_names_its_sample(tmp_path: Path) -> None:
    path = tmp_path / "tars"
    path.mkdir()
    with webdataset.TarWriter(str(path / "x.tar"), encoder=False) as writer:
        writer.write({"__key__": "1", "png": b"", "txt": "café".encode("latin-1")})
    for made in (ingested, indexed):
        with pytest.raises(
            BadInput, match=r"x\.tar: sample 1: its \.txt is not UTF-8 \(at byte 3\); correct it, read no captions"
        ):
            made(path)


def test_sets_without_captions_have_the_bytes_of_older_versions(tmp_path: Path) -> None:
    """A change here changes every artifact, as in `test_format`."""
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    samples = [Sample(image, 7), Sample(255 - image, None)]
    run = Run(str(tmp_path))
    split = write_split(run, "real", "train", 2, 2, lambda indices: [samples[index] for index in indices])
    assert split.tar_sha256s == ["0fc20376481e718d16cda6d7c3d4412393dbcb19b55088d384d0561cd0a266a8"]
    assert split.index_sha256s == ["3b81af95acabf395991d4ed294cbf46ab2025625347a76aaf014865951e4938e"]
    data = run.store.get("real/train-000000.index.json")
    assert hashlib.sha256(data).hexdigest() == split.index_sha256s[0]
    index = run.parse(ShardIndex, "real/train-000000.index.json", data)
    assert index.texts == [None, None]
    assert index.to_json() == data


def test_the_bytes_of_a_shard_with_captions_never_change(tmp_path: Path) -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    samples = [Sample(image, 7, "naïve\n猫"), Sample(255 - image, None)]
    split = write_split(Run(str(tmp_path)), "real", "train", 2, 2, lambda indices: [samples[index] for index in indices])
    assert split.tar_sha256s == ["53b7feb930259e7293d1d7abb446d9ff048eeb2c43a92c0d07b6ff53ef088ae0"]
    assert split.index_sha256s == ["786dd67d11cbc6c7694e7cd762cb9b6c1b0937259303ba36f526043081e4355e"]


def test_tars_indexed_by_a_version_without_captions_are_indexed_again(tmp_path: Path) -> None:
    path = write_tars(tmp_path / "tars", WRITTEN)
    before = indexed(path)
    for file in path.glob("*.index.json"):
        columns = json.loads(file.read_bytes())
        del columns["texts"]
        file.write_text(json.dumps(columns))
    (path / "manifest.json").unlink()
    again = indexed(path)
    assert again.digest == before.digest
    assert read_texts(again, "train") == TEXTS


@pytest.mark.parametrize("change", [{"texts": ["x"]}, {"texts": [1, 2, 3, 4]}, {"keys": 3}])
def test_an_index_whose_captions_do_not_fit_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_tars(tmp_path / "tars", None if "keys" in change else WRITTEN)
    indexed(path)
    columns = json.loads((path / "a.index.json").read_bytes()) | change
    with pytest.raises(BadInput, match=r"a\.index\.json"):
        Run(str(path)).parse(ShardIndex, "a.index.json", json.dumps(columns).encode())
