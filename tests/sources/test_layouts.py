"""Folders as people have them: what is understood is stated, and what is ambiguous is refused with what was found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.errors import BadInput
from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImageFolder, Shards
from adainf.shards.format.formats import COMMON_SUFFIXES, image_suffixes
from adainf.sources import ImageSource, SourceImages, kind_of, open_source

_random = np.random.default_rng(5)


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(root / name)


def opened(root: Path, **settings: object) -> ImageSource:
    return open_source(ImageFolder.model_validate({"kind": "folder", "path": str(root), **settings}))


def labels(images: SourceImages | None) -> list[int | None] | None:
    return None if images is None else [images[index].label for index in range(len(images))]


def refused(root: Path, **settings: object) -> str:
    with pytest.raises(BadInput) as caught:
        opened(root, **settings)
    return str(caught.value)


TWO = ("cat/1.png", "dog/1.png")


def both(*folders: str) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in TWO]


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test"),
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("seg_train", "seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("data/train", "data/test"),
        ("x/x/train", "x/x/test"),
        ("images/train", "images/val"),
    ],
)
def test_splits_by_any_usual_name(tmp_path: Path, folders: tuple[str, str]) -> None:
    put(tmp_path, *both(*folders))
    source = opened(tmp_path)
    assert (source.classes, labels(source.train), labels(source.test)) == (["cat", "dog"], [0, 1], [0, 1])
    assert source.validation is None
    renamed = "val" in folders[1]
    assert source.findings.layout == f"{folders[0]}/CLASS/FILE, {folders[1]}/CLASS/FILE{' as test' if renamed else ''}"


@pytest.mark.parametrize("folder", ["", "train/", "Training/", "x/", "x/x/", "x/x/train/", "train/train/", "images/"])
def test_classes_only(tmp_path: Path, folder: str) -> None:
    put(tmp_path, *(folder + name for name in TWO))
    source = opened(tmp_path)
    assert (source.classes, labels(source.train), source.test) == (["cat", "dog"], [0, 1], None)


def test_a_labelled_val_comes_before_a_flat_test(tmp_path: Path) -> None:
    put(tmp_path, *both("train", "val"), "test/1.png", "test/2.png")
    source = opened(tmp_path)
    assert labels(source.test) == [0, 1]
    assert source.findings.skipped["outside the splits"].files == 2


@pytest.mark.parametrize("test", ["test/images", "test/test", "test/unknown", "test"])
def test_a_test_split_without_class_folders_has_no_labels(tmp_path: Path, test: str) -> None:
    put(tmp_path, *both("train"), f"{test}/1.png")
    assert labels(opened(tmp_path).test) == [None]


def test_with_labelled_val_and_test_each_is_its_split(tmp_path: Path) -> None:
    put(tmp_path, *both("train", "valid", "test"))
    source = opened(tmp_path)
    assert [labels(images) for images in (source.train, source.validation, source.test)] == [[0, 1]] * 3
    assert source.test is not None
    assert "/test/" in source.test.locate(0)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (both("x/test"), "test/"),
        ([*both("test", "val")], "test/, val/"),
        ([*TWO, *both("test")], "test/, cat/, dog/"),
        ([*both("train"), "cat/1.png"], "train/, cat/"),
        ([*both("train", "Training")], "Training/, train/"),
        (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"], "inside a class folder"),
        ([*both("train"), "train/cat/val/1.png"], "inside a class folder"),
    ],
)
def test_an_ambiguous_layout_is_refused(tmp_path: Path, names: list[str], found: str) -> None:
    put(tmp_path, *names)
    message = refused(tmp_path)
    assert found in message
    assert "real.splits" in message


def test_stated_splits(tmp_path: Path) -> None:
    put(tmp_path, *TWO, *both("test", "fold2"))
    source = opened(tmp_path, splits={"train": ".", "test": "fold2", "validation": "test"})
    assert [len(images or ()) for images in (source.train, source.validation, source.test)] == [2, 2, 2]
    assert source.classes == ["cat", "dog"]
    assert "real.splits.test" in refused(tmp_path, splits={"train": "test", "test": "nowhere"})


def test_a_class_named_test_inside_train(tmp_path: Path) -> None:
    put(tmp_path, "train/test/1.png", "train/cat/1.png", "val/test/1.png", "val/cat/1.png")
    assert opened(tmp_path).classes == ["cat", "test"]


def test_files_of_operating_systems_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, *TWO, "__MACOSX/cat/1.png")
    for name in ("Thumbs.db", "cat/.DS_Store", "cat/._1.png", "cat/1.heic", "cat/2.jxl"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    source = opened(tmp_path)
    assert source.classes == ["cat", "dog"]
    assert {reason: one.files for reason, one in source.findings.skipped.items()} == {
        "hidden": 4,
        "suffix .heic": 1,
        "suffix .jxl": 1,
    }


@pytest.mark.parametrize(
    ("table", "text", "images", "expected"),
    [
        ("labels.csv", "id,breed\n1,pug\n2,akita\n", "images/", [1, 0]),
        ("labels.csv", "filename;label\n1.png;1\n2.png;0\n", "images/", [1, 0]),
        ("metadata.csv", "file_name,label,width\n1.png,b\n2.png,a\n", "", [1, 0]),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 2}\n{"file_name": "2.png"}\n', "", [2, None]),
        ("labels.csv", "id,label\n1,pug\n2,akita\n", "train/", [1, 0]),
        ("train/metadata.csv", "file_name,label\n1.png,b\n2.png,a\n", "train/", [1, 0]),
    ],
)
def test_labels_in_a_table(tmp_path: Path, table: str, text: str, images: str, expected: list[int | None]) -> None:
    put(tmp_path, f"{images}1.png", f"{images}2.png")
    (tmp_path / table).write_text(text)
    source = opened(tmp_path)
    assert labels(source.train) == expected
    assert source.findings.unused == (["metadata.csv: width"] if "width" in text else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,label\n9.png,a\n", "'9.png' (row 1) is not among the images"),
        ("file_name,x,y\n1.png,1,2\n", "no columns file_name and label"),
        ("file_name,label,split\n1.png,a,test\n", "its column split states splits"),
        ('file_name,label\n"1.png,a\n', "cannot be read as a table"),
        ("file_name,label\n1.png,a,b\n", "more values than there are columns"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    put(tmp_path, "images/1.png")
    (tmp_path / "labels.csv").write_text(text)
    assert said in refused(tmp_path)


def test_captions_beside_images_and_in_metadata(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    (tmp_path / "cat/1.txt").write_text(" a cat\n")
    (tmp_path / "cat/README.txt").write_text("no caption")
    source = opened(tmp_path)
    assert [source.train[index].text for index in range(3)] == ["a cat", None, None]
    assert source.findings.skipped["suffix .txt"].example == "cat/README.txt"
    rows = [{"file_name": f"{name}.png", "text": f"of {name}"} for name in ("cat/1", "cat/2")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = opened(tmp_path)
    assert [source.train[index].text for index in range(3)] == ["of cat/1", "of cat/2", None]
    assert source.classes == ["cat", "dog"]


def test_boxes_beside_images_are_no_captions(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    (tmp_path / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    source = opened(tmp_path)
    assert source.train[0].text is None
    assert source.findings.unused == [".txt beside images (numbers, such as boxes)"]


@pytest.mark.parametrize("folders", [("",), ("train/", "test/"), ("train/", "val/")])
def test_a_layout_that_older_versions_understood_keeps_its_fingerprint(tmp_path: Path, folders: tuple[str, ...]) -> None:
    names = [folder + name for folder in folders for name in TWO]
    put(tmp_path, *names)
    expected = sha256(canonical_json([[name, (tmp_path / name).stat().st_size] for name in names]))
    assert opened(tmp_path).fingerprint == expected
    (tmp_path / names[0]).with_suffix(".txt").write_text("a caption, which they did not read")
    assert opened(tmp_path).fingerprint != expected


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".jp2", ".tga", ".ico", ".dib", ".qoi", ".JPG"])
def test_every_suffix_that_pillow_decodes(tmp_path: Path, suffix: str) -> None:
    assert suffix.lower() in (*image_suffixes(), *COMMON_SUFFIXES)
    names = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000"}
    image = Image.fromarray(np.full((16, 16, 3), 100, np.uint8))
    image.save(tmp_path / f"1{suffix}", names.get(suffix))
    assert abs(int(opened(tmp_path).train[0].image.mean()) - 100) < 4


def test_formats_that_start_programs_are_not_read() -> None:
    assert not {".eps", ".ps", ".wmf", ".h5", ".mpg", ".pdf"} & set(image_suffixes())


def test_exif_orientation_and_sixteen_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :2] = 255
    Image.fromarray(image).save(tmp_path / "1.png", exif=exif)
    assert opened(tmp_path).train[0].image.shape == (8, 4, 3)
    assert (opened(tmp_path).train[0].image[:2] == 255).all()
    assert opened(tmp_path, exif_transpose=False).train[0].image.shape == (4, 8, 3)
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "1.png")
    assert opened(tmp_path, sixteen_bit="scale").train[0].image[0, :, 0].tolist() == [0, 1, 255]
    with pytest.raises(BadInput, match="sixteen_bit: scale"):
        opened(tmp_path).train[0]


def test_the_kind_of_a_source_is_decided_by_its_content(tmp_path: Path) -> None:
    put(tmp_path / "a", *(f"cat/{number}.png" for number in range(12)))
    (tmp_path / "a/backup.tar").write_bytes(b"")
    assert isinstance(kind_of(str(tmp_path / "a")), ImageFolder)
    for number in range(12):
        (tmp_path / f"{number}.tar").write_bytes(b"")
    put(tmp_path / "b", "preview.png")
    for number in range(12):
        (tmp_path / f"{number}.tar").rename(tmp_path / "b" / f"{number}.tar")
    assert isinstance(kind_of(str(tmp_path / "b")), Shards)
    put(tmp_path / "b", "preview2.png")
    with pytest.raises(BadInput, match=r"12 \.tar files .* and 2 images"):
        kind_of(str(tmp_path / "b"))
