"""CIFAR-10 and CIFAR-100, from local archives or a download: 50,000 + 10,000 images of 32 x 32 pixels.

Both of the authors' archives work and give the same shards. The binary version has fixed-size records, so reading it cannot
execute code. The Python version consists of pickles: torchvision loads them, after it has verified its pinned MD5 sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adainf.errors import AdaInfError, BadInput
from adainf.recipe import Cifar
from adainf.sources.base import ArrayImages, BadData, ImageSource, fingerprint_of

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """The file layout of one of the two sets."""

    title: str
    binary_folder: str
    train_files: tuple[str, ...]
    test_file: str
    file_records: tuple[int, int]
    """Records in a training file and in the test file."""
    label_bytes: int
    """CIFAR-100 has a coarse label before the fine one."""
    names_file: str
    python_folder: str
    url: str


LAYOUTS = {
    "cifar10": _Layout(
        title="CIFAR-10",
        binary_folder="cifar-10-batches-bin",
        train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test_file="test_batch.bin",
        file_records=(10_000, 10_000),
        label_bytes=1,
        names_file="batches.meta.txt",
        python_folder="cifar-10-batches-py",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ),
    "cifar100": _Layout(
        title="CIFAR-100",
        binary_folder="cifar-100-binary",
        train_files=("train.bin",),
        test_file="test.bin",
        file_records=(50_000, 10_000),
        label_bytes=2,
        names_file="fine_label_names.txt",
        python_folder="cifar-100-python",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    ),
}


def open_cifar(settings: Cifar) -> ImageSource:
    """The set below `settings.path` (torchvision's root); `settings.download` lets torchvision fetch it.

    Raises `BadData` where the archive is missing or corrupt, `AdaInfError` where a download fails.
    """
    layout, root = LAYOUTS[settings.kind], Path(settings.path)
    if root.exists() and not root.is_dir():
        raise BadData(f"{root}: is a file; set real.path to the folder that contains {layout.binary_folder}/")
    folder = root if root.name == layout.binary_folder else root / layout.binary_folder
    if folder.is_dir():
        return _open_binary(layout, folder)
    if not settings.download and not (root / layout.python_folder).is_dir():
        raise BadData(
            f"{root}: contains neither {layout.binary_folder}/ nor {layout.python_folder}/; unpack {layout.url} there, "
            f"set real.path to the folder of {layout.title}, or set real.download: true"
        )
    return _open_python(settings.kind, layout, root, settings.download)


def _source(train: ArrayImages, test: ArrayImages, classes: list[str]) -> ImageSource:
    parts = [array for part in (train, test) for array in (part.images, part.labels) if array is not None]
    return ImageSource(train, test, classes, fingerprint_of(*parts))


def _open_binary(layout: _Layout, folder: Path) -> ImageSource:
    classes = _names(folder / layout.names_file)
    in_train, in_test = layout.file_records
    train = _read_records(folder, layout.train_files, layout.label_bytes, in_train, len(classes))
    test = _read_records(folder, (layout.test_file,), layout.label_bytes, in_test, len(classes))
    return _source(train, test, classes)


def _names(file: Path) -> list[str]:
    classes = _read(file).decode("utf-8", "replace").split()
    if not classes:
        raise BadData(f"{file} lists no classes; unpack the archive again")
    return classes


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadData(f"{file} cannot be read ({error.strerror}); unpack the archive again") from None


def _read_records(folder: Path, names: tuple[str, ...], label_bytes: int, count: int, classes: int) -> ArrayImages:
    """The records of some files: label bytes (the fine label last), then all red, all green, all blue pixels."""
    record = label_bytes + _PIXELS
    tables = []
    for name in names:
        data = _read(folder / name)
        if len(data) != count * record:
            raise BadData(
                f"{folder / name} has {len(data)} bytes, expected {count * record} ({count} records); unpack the archive again"
            )
        table = np.frombuffer(data, np.uint8).reshape(count, record)
        if table[:, label_bytes - 1].max() >= classes:
            raise BadData(f"{folder / name} contains a label above {classes - 1}; unpack the archive again")
        tables.append(table)
    joined = np.concatenate(tables)
    images = joined[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArrayImages(images, joined[:, label_bytes - 1].astype(np.int64), str(folder))


def _open_python(kind: str, layout: _Layout, root: Path, download: bool) -> ImageSource:
    try:
        from torchvision import datasets  # imports torch, which the core does not need
    except ImportError:
        raise BadInput(f"{layout.python_folder} needs torchvision; pip install 'adainf[train]'") from None
    dataset_class = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
    train = _load(dataset_class, layout, root, True, download)
    test = _load(dataset_class, layout, root, False, False)
    folder = str(root / layout.python_folder)
    return _source(
        ArrayImages(train.data, np.asarray(train.targets, np.int64), folder),
        ArrayImages(test.data, np.asarray(test.targets, np.int64), folder),
        list(train.classes),
    )


def _load(dataset_class: Any, layout: _Layout, root: Path, train: bool, download: bool) -> Any:
    try:
        return dataset_class(str(root), train=train, download=download)
    except RuntimeError as error:
        raise BadData(
            f"{root / layout.python_folder}: {layout.title} is incomplete or corrupt ({error}); unpack the archive again"
        ) from None
    except OSError as error:
        if download:
            raise AdaInfError(f"{layout.title} could not be downloaded to {root} ({error}); put the archive there") from None
        raise BadData(f"{root / layout.python_folder} cannot be read ({error}); unpack the archive again") from None
