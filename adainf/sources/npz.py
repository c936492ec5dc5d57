"""A .npz with images (uint8, N x H x W x 3, RGB) and, if there are labels, integers (-1 for none), local or on S3.

The arrays are called image and label, images and labels, x and y, or arr_0 and arr_1: the latter is ADM's format of generated
images (`np.savez` without names).
"""

from __future__ import annotations

import hashlib
import math
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImportedImages, Npz
from adainf.shards.format.fields import printable
from adainf.shards.format.summary import Findings
from adainf.sources.base import ArrayImages, BadData, ImageSource, numbered_classes
from adainf.sources.staging import check_space, copy_object
from adainf.storage import open_store

IMAGES = ("image", "images", "x", "arr_0")
LABELS = ("label", "labels", "y", "arr_1")
_CHUNK = 1 << 20
_DESCRIPTOR_BYTES = 24
"""Maximum size of the data descriptor after a member (CRC and sizes that the header lacks)."""


@dataclass(frozen=True)
class _File:
    """A local file, which may be a copy of the one at `uri`."""

    path: Path
    uri: str

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class _Member:
    """One array of the file: SHA-256 of its .npy, and the fields of its header."""

    sha256: str
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    header_bytes: int


def open_npz(settings: Npz | ImportedImages, field: str = "real.path") -> ImageSource:
    """The images of one .npz, local or on S3. Output of `np.savez` is mapped from disk, output of `np.savez_compressed` is
    decompressed into memory; nothing is unpickled.

    Raises `BadData` with the file (and `field`, where the path is wrong), the array and the expected value.
    """
    if settings.path.startswith("s3://"):
        with _downloaded(settings.path, field) as file:  # mapped arrays outlive its name
            return _open(file)
    path = Path(settings.path).expanduser()
    if not path.is_file():
        raise BadData(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; set {field} to the .npz file")
    return _open(_File(path, str(path)))


@contextmanager
def _downloaded(uri: str, field: str) -> Iterator[_File]:
    """A temporary copy. Raises `BadData` where the object does not exist or does not fit on the disk."""
    folder, _, key = uri.rpartition("/")
    if folder.count("/") < 2 or not key:
        raise BadData(f"{uri}: names no object; set {field} to the .npz file")
    store = open_store(folder)
    info = store.head(key)
    if info is None:
        raise BadData(f"{uri}: no such file; set {field} to the .npz file")
    check_space(uri, info.size_bytes)
    with tempfile.NamedTemporaryFile(prefix="adainf-", suffix=".npz") as copy:
        copy_object(store, info, Path(copy.name))
        yield _File(Path(copy.name), uri)


def _open(file: _File) -> ImageSource:
    try:
        with zipfile.ZipFile(file.path) as archive:
            _check_directory(file, archive)
            members = {info.filename: _examine(archive, info) for info in archive.infolist()}
            image = _image_name(file, members)
            images = _images(file, archive, image, members[image])
            label = _label_name(members, image, len(images))
            labels = None if label is None else _labels(file, archive, label, members[label], len(images))
    except BadData:
        raise
    except Exception as error:  # corrupt bytes make zipfile raise many types: zlib.error, struct.error, RuntimeError, …
        raise BadData(f"{file} is not an intact .npz ({error or type(error).__name__}); download or write it again") from None
    used = {name: members[name].sha256 for name in (image, label) if name is not None}
    return ImageSource(
        ArrayImages(images, labels, str(file)),
        None,
        [] if labels is None else numbered_classes(labels, f"{file}: {_plain(label or '')}"),
        sha256(canonical_json(used)),
        Findings(unused=[_plain(name) for name in sorted(members.keys() - used.keys())]),
    )


def _check_directory(file: _File, archive: zipfile.ZipFile) -> None:
    """Check that the central directory, which has no checksum, omits no array: members must be contiguous."""
    at = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset - at > _DESCRIPTOR_BYTES:
            raise ValueError(f"its central directory does not list the bytes from {at} on")
        at = _data_offset(file, info) + info.compress_size
    if archive.start_dir - at > _DESCRIPTOR_BYTES:
        raise ValueError(f"its central directory does not list the bytes from {at} on")


def _examine(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    """Read the complete member, so that zipfile checks its CRC: a mapped array is not checked later."""
    digest = hashlib.sha256()
    with archive.open(info) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _header(stream) if info.filename.endswith(".npy") else ((), False, np.dtype("V1"))
        return _Member(digest.hexdigest(), shape, fortran_order, dtype, stream.tell())


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _image_name(file: _File, members: dict[str, _Member]) -> str:
    found = next((f"{name}.npy" for name in IMAGES if f"{name}.npy" in members), None)
    if found is None:
        held = ", ".join(sorted(map(_plain, members))) or "nothing"
        raise BadData(
            f"{file} has no array named {' or '.join(IMAGES)} (it contains {held}); rename the array of images to image"
        )
    return found


def _label_name(members: dict[str, _Member], image: str, count: int) -> str | None:
    """The member with the labels; arr_1 may be anything."""
    found = next((f"{name}.npy" for name in LABELS[:-1] if f"{name}.npy" in members), None)
    unnamed = f"{LABELS[-1]}.npy"
    if found is None and image == f"{IMAGES[-1]}.npy" and unnamed in members and _is_labels(members[unnamed], count):
        return unnamed
    return found


def _images(file: _File, archive: zipfile.ZipFile, name: str, member: _Member) -> NDArray[np.uint8]:
    shape = member.shape
    if member.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise BadData(f"{file}: {_plain(name)} is {_describe(member)}; expected uint8, N x H x W x 3 (RGB)")
    if not math.prod(shape):
        raise BadData(f"{file}: {_plain(name)} contains no pixels ({_describe(member)}); write the images again")
    return _array(file, archive, name, member)


def _labels(file: _File, archive: zipfile.ZipFile, name: str, member: _Member, count: int) -> NDArray[np.int64]:
    if not _is_labels(member, count):
        raise BadData(f"{file}: {_plain(name)} is {_describe(member)}; expected {count} integers, one per image")
    values = _array(file, archive, name, member).reshape(count)
    numbered_classes(values, f"{file}: {_plain(name)}")  # before the cast, in which a large unsigned label would overflow
    return values.astype(np.int64)


def _is_labels(member: _Member, count: int) -> bool:
    return member.dtype.kind in "iu" and member.shape in ((count,), (count, 1))


def _plain(name: str) -> str:
    """The name of an array."""
    return printable(name.removesuffix(".npy"))


def _describe(member: _Member) -> str:
    kind = "an array of Python objects" if member.dtype.hasobject else str(member.dtype)
    return f"{kind}, {' x '.join(map(str, member.shape)) or 'a single value'}"


def _array(file: _File, archive: zipfile.ZipFile, name: str, member: _Member) -> NDArray[Any]:
    info = archive.getinfo(name)
    expected = member.header_bytes + math.prod(member.shape) * member.dtype.itemsize
    if info.file_size != expected:
        raise BadData(f"{file}: {name} has {info.file_size} bytes, expected {expected} by its header; write it again")
    order: Any = "F" if member.fortran_order else "C"
    if info.compress_type == zipfile.ZIP_STORED:
        offset = _data_offset(file, info) + member.header_bytes
        return np.memmap(file.path, member.dtype, "r", offset, member.shape, order)
    data = archive.read(info)
    return np.frombuffer(data, member.dtype, offset=member.header_bytes).reshape(member.shape, order=order)


def _data_offset(file: _File, info: zipfile.ZipInfo) -> int:
    """The offset of a member's data: after its local header of 30 bytes, its name and its extra field."""
    with file.path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", stream.read(4))
    return int(info.header_offset + 30 + name_bytes + extra_bytes)
