"""Fashion-MNIST as published: four gzipped IDX files, 60,000 + 10,000 grey images of 28 x 28 pixels."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from adainf.recipe import FashionMnist
from adainf.shards.format.png import Pixels
from adainf.sources.base import ArrayImages, BadData, ImageSource, fingerprint_of

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

_FIX = "install Debian's package dataset-fashion-mnist, or set real.path to the folder with the four files"
_DOWNLOAD = "download the file again"


def open_fashion_mnist(settings: FashionMnist) -> ImageSource:
    """The four files in `settings.path` or in its ``FashionMNIST/raw``, as torchvision lays them out; .gz or unpacked.

    Raises `BadData`, with the file, where one is missing, corrupt or inconsistent with the others.
    """
    folder = _folder(Path(settings.path))
    train, test = _open_part(folder, "train"), _open_part(folder, "t10k")
    parts = [array for part in (train, test) for array in (part.images, part.labels) if array is not None]
    return ImageSource(train, test, list(CLASSES), fingerprint_of(*parts))


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise BadData(f"{root}: {'is a file' if root.exists() else 'no such folder'}; {_FIX}")
    inner = root / "FashionMNIST" / "raw"
    return inner if inner.is_dir() else root


def _open_part(folder: Path, part: str) -> ArrayImages:
    image_file = _find(folder, f"{part}-images-idx3-ubyte")
    label_file = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = _read(image_file, dimensions=3), _read(label_file, dimensions=1)
    if len(images) != len(labels):
        raise BadData(f"{label_file} has {len(labels)} labels for the {len(images)} images of {image_file}; {_DOWNLOAD}")
    if not images.size:
        raise BadData(f"{image_file} contains no pixels ({' x '.join(map(str, images.shape))}); {_DOWNLOAD}")
    if labels.max() >= len(CLASSES):
        raise BadData(f"{label_file}: label {labels.max()} is not one of 0 … {len(CLASSES) - 1}; {_DOWNLOAD}")
    return ArrayImages(images, labels.astype(np.int64), str(image_file))


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise BadData(f"{folder / name}.gz is missing; {_FIX}")


def _read(file: Path, dimensions: int) -> Pixels:
    try:
        data = file.read_bytes()
        if file.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{file} cannot be read ({error}); {_DOWNLOAD}") from None
    try:
        return parse_idx(data, dimensions)
    except ValueError as error:
        raise BadData(f"{file}: {error}; {_DOWNLOAD}") from None


def parse_idx(data: bytes, dimensions: int) -> Pixels:
    """The array of an IDX file of unsigned bytes: magic 0x000008DD, DD sizes (big-endian), the bytes.

    Raises `ValueError` where the magic number, the number of dimensions or the length is wrong.
    """
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise ValueError(f"it ends after {len(data)} bytes, inside the header of {header}")
    magic = 0x0800 + dimensions
    found, *shape = struct.unpack_from(f">I{dimensions}I", data)
    if found != magic:
        raise ValueError(f"it starts with 0x{found:08x}, expected 0x{magic:08x} for an IDX file with {dimensions} dimensions")
    if len(data) != header + math.prod(shape):
        raise ValueError(f"it has {len(data)} bytes, expected {header + math.prod(shape)} by its header")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
