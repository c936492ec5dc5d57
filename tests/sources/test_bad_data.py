"""Data that cannot be read give one message: what is wrong, in which file, and how to fix it; and exit code 64."""

from __future__ import annotations

import dataclasses
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adainf.errors import AdaInfError, BadInput
from adainf.recipe import Cifar, FashionMnist, ImageFolder, Npz, Real, Shards
from adainf.shards.format.samples import samples
from adainf.shards.format.tar import Sample, encode_shard
from adainf.sources import cifar, open_source

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)


def refusal(real: Real) -> str:
    """The message with which a source is refused, when opened or at one of its images."""

    def read() -> None:
        source = open_source(real)
        for index in range(len(source.train)):
            source.train[index]

    with pytest.raises(BadInput) as caught:
        read()
    assert caught.value.exit_code == 64
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def folder(path: Path) -> Real:
    return ImageFolder(kind="folder", path=str(path))


def npz(path: Path) -> Real:
    return Npz(kind="npz", path=str(path))


def shards(path: Path) -> Real:
    return Shards(kind="shards", path=str(path))


def fashion(path: Path) -> Real:
    return FashionMnist(kind="fashion-mnist", path=str(path))


def cifar10(path: Path) -> Real:
    return Cifar(kind="cifar10", path=str(path))


@pytest.mark.parametrize("kind", [folder, npz, shards, fashion, cifar10])
def test_a_missing_path(tmp_path: Path, kind: Callable[[Path], Real]) -> None:
    message = refusal(kind(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in message
    assert "set real.path to" in message


@pytest.mark.parametrize("kind", [folder, shards, fashion, cifar10])
def test_a_file_instead_of_a_folder(tmp_path: Path, kind: Callable[[Path], Real]) -> None:
    (tmp_path / "data").write_bytes(b"")
    assert f"{tmp_path / 'data'}: is a file; " in refusal(kind(tmp_path / "data"))


@pytest.mark.parametrize("kind", [folder, npz, shards, fashion, cifar10])
def test_an_empty_folder(tmp_path: Path, kind: Callable[[Path], Real]) -> None:
    message = refusal(kind(tmp_path))
    assert str(tmp_path) in message
    assert "set real.path to" in message


# ------------------------------------------------------------------------------------------------------ image folders


@pytest.mark.parametrize("lost_bytes", [1, 12, 20, 60])
def test_a_truncated_image(tmp_path: Path, lost_bytes: int) -> None:
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    file = tmp_path / "1.png"
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    message = refusal(folder(tmp_path))
    assert message.startswith(f"{file}: cannot decode the image")
    assert message.endswith("replace or remove this file")


def test_an_image_of_sixteen_bits_is_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "deep.png")
    assert "more than 8 bits per channel (mode I;16)" in refusal(folder(tmp_path))


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "elsewhere.png")
    assert f"{tmp_path / 'gone.png'}: No such file" in refusal(folder(tmp_path))


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "y.png").symlink_to("x.png")
    assert f"{tmp_path / 'x.png'}: is a pipe or a device" in refusal(folder(tmp_path))


def test_an_empty_path() -> None:
    assert "real.path is empty" in refusal(ImageFolder(kind="folder", path=""))


@pytest.mark.parametrize("closed", ["", "data", "data/cat"])
@pytest.mark.parametrize("mode", [0, 0o444])
def test_unreadable_folders(tmp_path: Path, closed: str, mode: int) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    Image.fromarray(IMAGES[0]).save(tmp_path / "data" / "cat" / "1.png")
    tmp_path.chmod(0o755)
    (tmp_path / closed).chmod(mode)
    child = os.fork()
    if child == 0:  # root may read everything, so change to user nobody
        try:
            os.chdir(tmp_path)  # relative paths, as nobody cannot traverse the folders above
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            message = refusal(folder(Path("data")))
            assert message.startswith("data")
            assert "Permission denied" in message
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (tmp_path / closed).chmod(0o755)
    assert code == 0


def test_a_link_cycle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    assert f"{tmp_path / 'a' / 'b'}: is a link to a folder that contains it" in refusal(folder(tmp_path))


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9")).mkdir()
    assert r"the name 'caf\udce9' is not UTF-8; rename it" in refusal(folder(tmp_path))


def test_a_class_only_in_the_test_split(tmp_path: Path) -> None:
    for name in ("train/cat", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name / "1.png")
    message = refusal(folder(tmp_path))
    assert f"{tmp_path / 'test/dog/1.png'}: dog is not a class of train/" in message


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("val_0.JPEG\tn09\t0\n", "line 1: 'val_0.JPEG\\tn09\\t0' does not name a class of train/"),
        ("val_0.JPEG\n", "line 1: 'val_0.JPEG' does not name a class"),
        ("", "val_0.JPEG is not in both"),
        ("val_0.JPEG\tn01\nval_1.JPEG\tn01\n", "val_1.JPEG is not in both"),
    ],
)
def test_inconsistent_annotations_of_tiny_imagenet(tmp_path: Path, table: str, said: str) -> None:
    for name in ("train/n01/images/n01_0.JPEG", "val/images/val_0.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    (tmp_path / "val" / "val_annotations.txt").write_text(table)
    message = refusal(folder(tmp_path))
    assert str(tmp_path / "val" / "val_annotations.txt") in message
    assert said in message


# --------------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": IMAGES}, "has no array named image or images or x or arr_0 (it contains pictures); rename the array of"),
        ({}, "has no array named image or images or x or arr_0 (it contains nothing)"),
        ({"x": IMAGES, "y": np.eye(3)}, "y is float64, 3 x 3; expected 3 integers"),
        ({"image": IMAGES.astype(np.float32)}, "image is float32, 3 x 4 x 4 x 3; expected uint8, N x H x W x 3 (RGB)"),
        ({"image": IMAGES[0]}, "image is uint8, 4 x 4 x 3; expected"),
        ({"image": IMAGES.transpose(0, 3, 1, 2)}, "image is uint8, 3 x 3 x 4 x 4; expected"),
        ({"image": IMAGES[:0]}, "image contains no pixels"),
        ({"image": IMAGES[:, :0]}, "image contains no pixels"),
        ({"image": np.array([1, "x"], object)}, "image is an array of Python objects, 2; expected"),
        ({"image": IMAGES, "label": np.arange(2)}, "label is int64, 2; expected 3 integers"),
        ({"image": IMAGES, "label": np.arange(3.0)}, "label is float64, 3; expected 3 integers"),
        ({"image": IMAGES, "label": np.array([1, 2, "x"], object)}, "label is an array of Python objects, 3; expected"),
        ({"image": IMAGES, "label": np.array([0, -2, 1])}, "label -2 is not a class number"),
        (
            {"image": IMAGES, "label": np.array([0, 2**64 - 1, 1], np.uint64)},
            f"label {2**64 - 1} is not a class number",
        ),
    ],
)
def test_npz_with_invalid_arrays(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    file = tmp_path / "some.npz"
    np.savez(file, **arrays)  # pickles the object arrays
    message = refusal(npz(file))
    assert str(file) in message
    assert said in message


def test_a_file_that_is_not_an_npz(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    np.save(file.open("wb"), IMAGES)
    assert refusal(npz(file)).startswith(f"{file} is not an intact .npz (File is not a zip file)")
    assert "is a folder; set real.path to the .npz file" in refusal(npz(tmp_path))


# --------------------------------------------------------------------------------------------------------------- tars


def test_a_truncated_tar(tmp_path: Path) -> None:
    data = encode_shard(0, [Sample(image, 1) for image in IMAGES])
    for size, said in (
        (1000, "it ends inside 000000.png"),
        (0, "without the end-of-archive mark"),
        (4096, "without the end-of-arch"),
    ):
        (tmp_path / "x.tar").write_bytes(data[:size])
        message = refusal(shards(tmp_path))
        assert message.startswith(f"{tmp_path}/x.tar: ")
        assert said in message


def test_tars_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(encode_shard(0, []))
    assert f"{tmp_path}: its 1 .tar files contain no images; set real.path" in refusal(shards(tmp_path))


def test_compressed_tars_are_not_skipped(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar.gz"):
        (tmp_path / name).write_bytes(encode_shard(0, [Sample(IMAGES[0], 1)]))
    assert f"{tmp_path}/1.tar.gz: is compressed; unpack it" in refusal(shards(tmp_path))


def test_a_corrupt_image_in_a_tar(tmp_path: Path) -> None:
    data = bytearray(encode_shard(0, [Sample(image, 1) for image in IMAGES]))
    data[samples(bytes(data))[2].image.offset + 60] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    assert refusal(shards(tmp_path)).startswith(f"{tmp_path}/x.tar: sample 000002: cannot decode the image")


def test_a_label_of_a_tar_that_is_not_a_class_number(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(encode_shard(0, [Sample(image, 10**30) for image in IMAGES]))
    assert f"{tmp_path}/x.tar: sample 000000: its .cls is {10**30}, not a class number" in refusal(shards(tmp_path))


# ------------------------------------------------------------------------------------------------- IDX, CIFAR's records


def header(*sizes: int, magic: int | None = None) -> bytes:
    return struct.pack(f">I{len(sizes)}I", magic or 0x0800 + len(sizes), *sizes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train-images-idx3-ubyte", None, "is missing; install Debian's package dataset-fashion-mnist"),
        ("train-images-idx3-ubyte", header(2, 2, 2, magic=0x0D03) + bytes(8), "starts with 0x00000d03, expected 0x00000803"),
        ("train-images-idx3-ubyte", header(2, 2, 2) + bytes(7), "has 23 bytes, expected 24"),
        ("train-images-idx3-ubyte", header(2, 2), "it ends after 12 bytes, inside the header"),
        ("train-images-idx3-ubyte", header(3, 2, 2) + bytes(12), "has 2 labels for the 3 images"),
        ("train-images-idx3-ubyte", header(2, 0, 2), "contains no pixels (2 x 0 x 2)"),
        ("t10k-labels-idx1-ubyte", header(2) + bytes([3, 10]), "label 10 is not one of 0 … 9"),
        ("t10k-labels-idx1-ubyte", b"cut", "cannot be read"),
    ],
)
def test_inconsistent_idx_files(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header(2, 2, 2) + bytes(8)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header(2) + bytes(2)))
    file = tmp_path / f"{name}.gz"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9] if content == b"cut" else gzip.compress(content))
    message = refusal(fashion(tmp_path))
    assert said in message
    assert str(file) in message


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "data_batch_3.bin").unlink(), "data_batch_3.bin cannot be read (No such file"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(bytes(3073)), "test_batch.bin has 3073 bytes, expected 6146"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b"\xff" * 6146), "test_batch.bin contains a label above 1"),
        (lambda folder: (folder / "batches.meta.txt").write_bytes(b"\n"), "batches.meta.txt lists no classes"),
    ],
)
def test_incomplete_binary_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], said: str
) -> None:
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", dataclasses.replace(cifar.LAYOUTS["cifar10"], file_records=(2, 2)))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(bytes(6146))
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    open_source(cifar10(tmp_path))
    spoil(folder)
    message = refusal(cifar10(tmp_path))
    assert str(folder) in message
    assert said in message


def test_python_cifar_with_a_wrong_md5_is_not_unpickled(tmp_path: Path) -> None:
    pytest.importorskip("torchvision.datasets")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nabort\n(tR.")  # a pickle that would end this process
    message = refusal(cifar10(tmp_path))
    assert f"{folder}: CIFAR-10 is incomplete or corrupt" in message


def test_a_failed_download_is_retryable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(self: object) -> None:
        raise ConnectionResetError("the network went away")

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(AdaInfError, match="could not be downloaded") as caught:
        open_source(Cifar(kind="cifar10", path=str(tmp_path), download=True))
    assert caught.value.exit_code not in (64, 75)
