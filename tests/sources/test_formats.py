"""Every format is read as its authors define it; inputs are synthetic files in that format or the original data."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import pickle
import struct
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK, BadInput
from adainf.recipe import Cifar, Digits, FashionMnist, ImageFolder, ImportedImages, Npz, Provenance, Shards
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.tar import Sample, encode_shard
from adainf.shards.loader.read_all import read_split
from adainf.sources import cifar, open_import, open_source
from adainf.storage import open_store

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NOBODY = Provenance(generator="a test", trained_on="nothing", used_labels=False)


def pixels(count: int, height: int, width: int, seed: int = 0, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, *channels), dtype=np.uint8)


def save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


# -------------------------------------------------------------------------------------------------------- the digits


def test_digits_are_those_of_scikit_learn() -> None:
    source = open_source(Digits(kind="digits"))
    expected: Any = load_digits()
    assert (len(source.train), source.test, source.classes) == (1797, None, list("0123456789"))
    for index in range(0, 1797, 50):
        image, label, _ = source.train[index]
        assert (image.shape, image.dtype, label) == ((8, 8, 3), np.dtype(np.uint8), expected.target[index])
        for channel in range(3):
            assert (image[:, :, channel] == np.floor(expected.images[index] * 255 / 16 + 0.5)).all()
    assert source.train[0].image.max() > 220  # 16 sixteenths are white


# ----------------------------------------------------------------------------------------------------- Fashion-MNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path, packed: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {
        "train-images-idx3-ubyte": pixels(12, 28, 28, 1, ()),
        "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": pixels(5, 28, 28, 2, ()),
        "t10k-labels-idx1-ubyte": np.array([9, 8, 7, 6, 5], np.uint8),
    }
    for name, array in arrays.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inner", [".", "FashionMNIST/raw"])
def test_fashion_mnist_packed_or_not_flat_or_as_torchvision_lays_it_out(tmp_path: Path, packed: bool, inner: str) -> None:
    arrays = write_fashion_mnist(tmp_path / "data" / inner, packed)
    source = open_source(FashionMnist(kind="fashion-mnist", path=str(tmp_path / "data")))
    assert source.test is not None
    for images, part in ((source.train, "train"), (source.test, "t10k")):
        expected, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        assert len(images) == len(expected)
        for index, grey in enumerate(expected):
            assert (images[index].image == grey[:, :, None]).all()
            assert images[index].image.shape == (28, 28, 3)
            assert images[index].label == labels[index]
    assert source.classes[0] == "T-shirt/top"
    assert source.classes[9] == "Ankle boot"


def test_the_fingerprint_of_fashion_mnist_is_of_the_images_not_of_the_files(tmp_path: Path) -> None:
    for name, packed in (("a", True), ("b", False)):
        write_fashion_mnist(tmp_path / name, packed)
    a, b = (open_source(FashionMnist(kind="fashion-mnist", path=str(tmp_path / name))) for name in "ab")
    assert a.fingerprint == b.fingerprint


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian() -> None:
    source: Any = open_source(FashionMnist(kind="fashion-mnist"))
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (60_000, 10_000)
    labels = np.array([source.train[index].label for index in range(60_000)])
    assert (np.bincount(labels) == 6_000).all()
    assert labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert source.train.images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # the usual constant for normalization


# ------------------------------------------------------------------------------------------------------------- CIFAR

CIFAR_IMAGES = pixels(24, 32, 32, 3)
"""4 images for each of five training files and for the test file."""
NAMES = [f"class{number}" for number in range(10)]


def write_binary_cifar(root: Path, kind: str) -> np.ndarray:
    layout = cifar.LAYOUTS[kind]
    folder = root / layout.binary_folder
    folder.mkdir(parents=True)
    labels = np.arange(24) * 7 % 10
    (folder / layout.names_file).write_text("\n".join(NAMES) + "\n\n")
    records = [bytes([5] * (layout.label_bytes - 1) + [labels[i]]) + planes(CIFAR_IMAGES[i]) for i in range(24)]
    for name in layout.train_files:
        count = 20 // len(layout.train_files)
        (folder / name).write_bytes(b"".join(records[:count]))
        records = records[count:]
    (folder / layout.test_file).write_bytes(b"".join(records))
    return labels


def planes(image_HWC: np.ndarray) -> bytes:
    return image_HWC.transpose(2, 0, 1).tobytes()


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"cifar10": (4, 4), "cifar100": (20, 4)}
    for kind, counts in small.items():
        monkeypatch.setitem(cifar.LAYOUTS, kind, dataclasses.replace(cifar.LAYOUTS[kind], file_records=counts))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("given", ["root", "folder"])
@pytest.mark.usefixtures("small_cifar")
def test_the_binary_version_of_cifar(tmp_path: Path, kind: Any, given: str) -> None:
    labels = write_binary_cifar(tmp_path, kind)
    path = tmp_path if given == "root" else tmp_path / cifar.LAYOUTS[kind].binary_folder
    source = open_source(Cifar(kind=kind, path=str(path)))
    assert source.test is not None
    assert (len(source.train), len(source.test), source.classes) == (20, 4, NAMES)
    read = [source.train[i] for i in range(20)] + [source.test[i] for i in range(4)]
    assert (np.stack([sample.image for sample in read]) == CIFAR_IMAGES).all()
    assert [sample.label for sample in read] == labels.tolist()


@pytest.mark.usefixtures("small_cifar")
def test_the_python_version_of_cifar_is_the_same_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    labels = write_binary_cifar(tmp_path / "binary", "cifar10")
    folder = tmp_path / "python" / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(name: str, part: slice) -> list[str]:
        rows = CIFAR_IMAGES[part].transpose(0, 3, 1, 2).reshape(4, -1)
        return [name, write(name, {"data": rows, "labels": labels[part].tolist()})]

    train = [batch(f"data_batch_{n}", slice(4 * n - 4, 4 * n)) for n in range(1, 6)]
    test = [batch("test_batch", slice(20, 24))]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": NAMES})}
    for name, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(datasets.CIFAR10, name, value)
    python, binary = (open_source(Cifar(kind="cifar10", path=str(tmp_path / name))) for name in ("python", "binary"))
    assert python.fingerprint == binary.fingerprint
    assert python.classes == binary.classes
    assert (python.train[7].image == binary.train[7].image).all()


# ------------------------------------------------------------------------------------------------------ image folders


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    images = pixels(5, 6, 7)
    for name, image in zip(("b/2.png", "b/10.PNG", "a/x/1.bmp", "a/0.png", "top.png"), images, strict=True):
        save(tmp_path / name, image)
    for noise in (".hidden.png", "b/.DS_Store", "b/notes.txt", ".git/1.png"):
        (tmp_path / noise).parent.mkdir(exist_ok=True)
        (tmp_path / noise).write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    source = open_source(ImageFolder(kind="folder", path=str(tmp_path)))
    assert source.test is None
    assert source.classes == ["a", "b"]
    expected = [("a/0.png", 0, 3), ("a/x/1.bmp", 0, 2), ("b/10.PNG", 1, 1), ("b/2.png", 1, 0), ("top.png", None, 4)]
    for index, (name, label, number) in enumerate(expected):
        assert source.train.locate(index) == str(tmp_path / name)
        assert source.train[index].label == label
        assert (source.train[index].image == images[number]).all()
    assert len(source.train) == 5


@pytest.mark.parametrize(("folders", "test_count"), [(["test"], 1), (["val"], 1), (["test", "val"], 1), ([], None)])
def test_the_splits_of_a_folder(tmp_path: Path, folders: list[str], test_count: int | None) -> None:
    images = pixels(4, 4, 4)
    save(tmp_path / "train" / "cat" / "1.png", images[0])
    save(tmp_path / "train" / "dog" / "1.png", images[1])
    for name in folders:
        save(tmp_path / name / "dog" / "9.png", images[2 if name == "test" else 3])
    source = open_source(ImageFolder(kind="folder", path=str(tmp_path)))
    assert len(source.train) == 2
    if test_count is None:
        assert source.test is None
        assert source.classes == ["cat", "dog"]  # the name of a split is no class
        return
    assert source.test is not None
    assert source.classes == ["cat", "dog"]
    assert (len(source.test), source.test[0].label) == (1, 1)
    assert (source.test[0].image == images[2 if "test" in folders else 3]).all()


def test_tiny_imagenet_as_unpacked(tmp_path: Path) -> None:
    images = pixels(6, 64, 64)
    for number, name in enumerate(("n02/images/n02_0", "n02/images/n02_1", "n01/images/n01_0")):
        save(tmp_path / "train" / f"{name}.JPEG", images[number])
    (tmp_path / "train" / "n01" / "n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t63\t63\n")
    Image.fromarray(images[3][:, :, 0]).save(tmp_path / "train" / "n01" / "images" / "n01_1.JPEG")  # some are grey
    for number in range(2):
        save(tmp_path / "val" / "images" / f"val_{number}.JPEG", images[4 + number])
        save(tmp_path / "test" / "images" / f"test_{number}.JPEG", images[number])
    (tmp_path / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t0\t0\t9\t9\n")
    source = open_source(ImageFolder(kind="folder", path=str(tmp_path)))
    assert source.test is not None
    assert source.classes == ["n01", "n02"]
    assert [source.train[index].label for index in range(4)] == [0, 0, 1, 1]
    assert source.train[1].image.shape == (64, 64, 3)
    assert [source.test[index].label for index in range(2)] == [1, 0]
    assert len(source.test) == 2


# --------------------------------------------------------------------------------------------------------- npz, tars


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path: Path, compressed: bool, order: Any) -> None:
    images, labels = pixels(9, 5, 4), np.array([2, 0, -1, 1, 1, 0, 2, 2, -1], np.int16)
    file = tmp_path / "some.npz"
    arrays: dict[str, Any] = {"image": np.asarray(images, order=order), "label": labels, "extra": np.arange(3.0)}
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    source: Any = open_source(Npz(kind="npz", path=str(file)))
    assert source.test is None
    assert source.classes == ["0", "1", "2"]
    assert (np.stack([source.train[index].image for index in range(len(source.train))]) == images).all()
    assert [source.train[index].label for index in range(9)] == [2, 0, None, 1, 1, 0, 2, 2, None]
    mapped = isinstance(source.train.images, np.memmap)  # a million images need not fit in memory
    assert mapped is not compressed


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_the_names_of_arrays_that_are_usual(tmp_path: Path, image: str, label: str) -> None:
    """The last pair is what `np.savez(path, images, labels)` writes, as ADM and its successors do."""
    images, labels = pixels(3, 5, 4), np.array([[2], [0], [-1]])
    arrays: dict[str, Any] = {image: images, label: labels, "z_mean": np.zeros(2)}
    np.savez(tmp_path / "some.npz", **arrays)
    source = open_source(Npz(kind="npz", path=str(tmp_path / "some.npz")))
    assert (np.stack([source.train[index].image for index in range(3)]) == images).all()
    assert [source.train[index].label for index in range(3)] == [2, 0, None]
    assert source.findings.unused == ["z_mean"]


def test_an_unnamed_second_array_that_is_not_labels_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "some.npz", pixels(3, 5, 4), np.zeros((3, 7)))
    assert main(["shards", "import", str(tmp_path / "some.npz"), str(tmp_path / "set")]) == OK
    assert "import: train 3 images (no labels); 5 x 4 px; RGB\nimport: unused fields: arr_1" in capsys.readouterr().out


def test_npz_on_s3(s3_env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uri = f"{s3_env}/{tmp_path.name}"
    images = pixels(3, 5, 4)
    np.savez(tmp_path / "some.npz", images, np.arange(3))
    open_store(uri).put("some.npz", (tmp_path / "some.npz").read_bytes())
    (tmp_path / "some.npz").unlink()
    source = open_source(Npz(kind="npz", path=f"{uri}/some.npz"))
    assert list(tmp_path.iterdir()) == []  # the copy has no name any more, and is mapped
    assert (np.stack([source.train[index].image for index in range(3)]) == images).all()
    assert main(["shards", "import", f"{uri}/some.npz", str(tmp_path / "set")]) == OK
    assert main(["shards", "import", f"{uri}/none.npz", str(tmp_path / "other")]) == BAD_INPUT
    assert f"adainf: {uri}/none.npz: no such file; set SOURCE to the .npz file" in capsys.readouterr().err


def test_npz_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", image=pixels(3, 5, 4))
    source = open_source(Npz(kind="npz", path=str(tmp_path / "some.npz")))
    assert source.classes == []
    assert source.train[2].label is None


def test_tars_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = pixels(7, 4, 6)
    labels = [3, None, 0, 1, 1, 0, 2]
    samples = [Sample(image, label) for image, label in zip(images, labels, strict=True)]
    (tmp_path / "b.tar").write_bytes(encode_shard(4, samples[4:]))
    (tmp_path / "a.tar").write_bytes(encode_shard(0, samples[:4]))
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "._a.tar").write_bytes(b"of a Mac")
    source = open_source(Shards(kind="shards", path=str(tmp_path)))
    assert len(source.train) == 7
    assert source.classes == ["0", "1", "2", "3"]
    for index in (0, 6, 3, 4, 1, 5, 2):  # any order works
        assert (source.train[index].image == images[index]).all()
        assert source.train[index].label == labels[index]
    assert source.train.locate(4) == f"{tmp_path}/b.tar: sample 000004"


def test_tars_on_s3(s3_env: str, tmp_path: Path) -> None:
    images = pixels(3, 4, 6)
    data = encode_shard(0, [Sample(image, 1) for image in images])
    (tmp_path / "0.tar").write_bytes(data)
    open_store(s3_env).put("0.tar", data)
    here, there = (open_source(Shards(kind="shards", path=path)) for path in (str(tmp_path), s3_env))
    assert (np.stack([there.train[index].image for index in range(3)]) == images).all()
    assert there.train.locate(2) == f"{s3_env}/0.tar: sample 000002"
    assert here.fingerprint == there.fingerprint


def test_a_tar_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        samples = [Sample(image, 0) for image in pixels(2, 4, 4, seed)]
        (tmp_path / f"{name}.tar").write_bytes(encode_shard(0, samples))
    source = open_source(Shards(kind="shards", path=str(tmp_path)))
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    with pytest.raises(BadInput, match=r"a\.tar changed while it was read") as caught:
        source.train[0]
    assert caught.value.exit_code == 64
    (tmp_path / "a.tar").unlink()
    with pytest.raises(BadInput, match=r"a\.tar was deleted") as caught:
        source.train[0]
    assert caught.value.exit_code == 64


@pytest.mark.parametrize("form", ["npz", "shards", "folder"])
def test_imported_images_in_every_form(tmp_path: Path, form: Any) -> None:
    images = pixels(4, 8, 8)
    path = tmp_path / "in"
    path.mkdir()
    if form == "npz":
        path = path / "generated.npz"
        np.savez(path, image=images, label=np.arange(4))
    elif form == "shards":
        (path / "0.tar").write_bytes(encode_shard(0, [Sample(image, 1) for image in images]))
    else:
        for number, image in enumerate(images):
            save(path / ("train" if number < 2 else "val") / f"{number}.png", image)
    opened = open_import(ImportedImages(kind="import", format=form, path=str(path), provenance=NOBODY)).train
    assert (np.stack([opened[index].image for index in range(len(opened))]) == images).all()


# --------------------------------------------------------------------------------------------------- a set without a run


def test_a_folder_imported_and_exported_again_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With labels and its own test split; a second import writes nothing; other images are refused by name."""
    images = pixels(12, 6, 5)
    for number, image in enumerate(images):
        save(tmp_path / "pictures" / ("test" if number >= 9 else "train") / f"class-{number % 2}" / f"{number:02}.png", image)
    command = ["shards", "import", str(tmp_path / "pictures"), str(tmp_path / "sets" / "small"), "--shard-images", "4"]
    assert main(command) == OK
    made = ShardFolder.open(str(tmp_path / "sets" / "small"))
    assert made.shards.classes == ["class-0", "class-1"]
    assert {name: (split.images, len(list(split.shards))) for name, split in made.shards.splits.items()} == {
        "train": (9, 3),
        "test": (3, 1),
    }
    found = read_split(made, "train")
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7]  # by class, then by name
    assert (found.images == images[order]).all()
    assert found.labels.tolist() == [0] * 5 + [1] * 4
    assert main(command) == OK
    assert "skipped" in capsys.readouterr().out
    save(tmp_path / "pictures" / "train" / "class-0" / "another.png", images[0])
    assert main(command) == BAD_INPUT
    assert "was written by another recipe or from other inputs" in capsys.readouterr().err


def test_an_import_that_fails_leaves_nothing_and_names_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "pictures" / "a.png", pixels(1, 6, 6)[0])
    save(tmp_path / "pictures" / "b.png", pixels(1, 6, 9)[0])
    assert main(["shards", "import", str(tmp_path / "pictures"), str(tmp_path / "set")]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "b.png is 6 x 9 px" in said
    assert "--image-size" in said
    assert not [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert main(["shards", "import", str(tmp_path / "pictures"), str(tmp_path / "set"), "--image-size", "4"]) == OK
    assert main(["shards", "import", str(tmp_path / "pictures"), "s3://bucket"]) == BAD_INPUT
