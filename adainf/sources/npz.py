"""A .npz with `image` (uint8, N x H x W x 3, RGB) and, if there are labels, `label` (integers, -1 for none)."""

from __future__ import annotations

import hashlib
import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImportedImages, Npz
from adainf.sources.base import ArrayImages, BadData, ImageSource, numbered_classes

_CHUNK = 1 << 20
_DESCRIPTOR_BYTES = 24
"""Maximum size of the data descriptor after a member (CRC and sizes that the header lacks)."""


@dataclass(frozen=True)
class _Member:
    """One array of the file: SHA-256 of its .npy, and the fields of its header."""

    sha256: str
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    header_bytes: int


def open_npz(settings: Npz | ImportedImages, field: str = "real.path") -> ImageSource:
    """The images of one .npz. Output of `np.savez` is mapped from disk, output of `np.savez_compressed` is decompressed
    into memory; nothing is unpickled.

    Raises `BadData` with the file (and `field`, where the path is wrong), the array and the expected value.
    """
    file = Path(settings.path)
    if not file.is_file():
        raise BadData(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; set {field} to the .npz file")
    try:
        with zipfile.ZipFile(file) as archive:
            _check_directory(file, archive)
            members = {info.filename: _examine(archive, info) for info in archive.infolist()}
            images = _images(file, archive, members)
            labels = _labels(file, archive, members, len(images))
    except BadData:
        raise
    except Exception as error:  # corrupt bytes make zipfile raise many types: zlib.error, struct.error, RuntimeError, …
        raise BadData(f"{file} is not an intact .npz ({error or type(error).__name__}); download or write it again") from None
    digests = {name: member.sha256 for name, member in members.items() if name in ("image.npy", "label.npy")}
    return ImageSource(
        ArrayImages(images, labels, str(file)),
        None,
        [] if labels is None else numbered_classes(labels, f"{file}: label"),
        sha256(canonical_json(digests)),
    )


def _check_directory(file: Path, archive: zipfile.ZipFile) -> None:
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


def _images(file: Path, archive: zipfile.ZipFile, members: dict[str, _Member]) -> NDArray[np.uint8]:
    member = members.get("image.npy")
    if member is None:
        held = ", ".join(sorted(name.removesuffix(".npy") for name in members)) or "nothing"
        raise BadData(f"{file} has no array named image (it contains {held}); rename the array of images to image")
    shape = member.shape
    if member.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise BadData(f"{file}: image is {_describe(member)}; expected uint8, N x H x W x 3 (RGB)")
    if not math.prod(shape):
        raise BadData(f"{file}: image contains no pixels ({_describe(member)}); write the images again")
    return _array(file, archive, "image.npy", member)


def _labels(file: Path, archive: zipfile.ZipFile, members: dict[str, _Member], count: int) -> NDArray[np.int64] | None:
    member = members.get("label.npy")
    if member is None:
        return None
    if member.dtype.kind not in "iu" or member.shape != (count,):
        raise BadData(f"{file}: label is {_describe(member)}; expected {count} integers, one per image")
    values = _array(file, archive, "label.npy", member)
    numbered_classes(values, f"{file}: label")  # before the cast, in which a large unsigned label would overflow
    return values.astype(np.int64)


def _describe(member: _Member) -> str:
    kind = "an array of Python objects" if member.dtype.hasobject else str(member.dtype)
    return f"{kind}, {' x '.join(map(str, member.shape)) or 'a single value'}"


def _array(file: Path, archive: zipfile.ZipFile, name: str, member: _Member) -> NDArray[Any]:
    info = archive.getinfo(name)
    expected = member.header_bytes + math.prod(member.shape) * member.dtype.itemsize
    if info.file_size != expected:
        raise BadData(f"{file}: {name} has {info.file_size} bytes, expected {expected} by its header; write it again")
    order: Any = "F" if member.fortran_order else "C"
    if info.compress_type == zipfile.ZIP_STORED:
        offset = _data_offset(file, info) + member.header_bytes
        return np.memmap(file, member.dtype, "r", offset, member.shape, order)
    data = archive.read(info)
    return np.frombuffer(data, member.dtype, offset=member.header_bytes).reshape(member.shape, order=order)


def _data_offset(file: Path, info: zipfile.ZipInfo) -> int:
    """The offset of a member's data: after its local header of 30 bytes, its name and its extra field."""
    with file.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", stream.read(4))
    return int(info.header_offset + 30 + name_bytes + extra_bytes)
