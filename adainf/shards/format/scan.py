"""A tar scanner that accounts for every byte.

Python's tarfile mistakes a corrupt header for the end of the archive and stops silently; it also takes 20 µs per member. This
scanner takes about 1 µs per member, and raises `ValueError` with the location of any corruption. A tar lies in memory, or is
read once from its first byte to its last (`Forward`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import IO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")

Buffer = bytes | memoryview

_FILE, _FOLDER = b"0\x007", ord("5")
_EXTENDED = b"xgLK"
"""Types of entries that extend the next one: POSIX x and g, GNU long name and long link."""
_CHECKSUM = slice(148, 156)
_POWERS = 8 ** np.arange(6)[::-1]
_LANES = np.uint64(0x00FF00FF00FF00FF)
_WINDOW = 1 << 18
_PENDING_HEADERS = 1024
"""Headers whose checksums are verified together: they fit the CPU cache."""
_LARGE = 1 << 20
"""The headers before a member of more bytes are verified first: its size may be corrupt."""
_MAX_EXTENDED = 1 << 20
"""Maximum size of an extended header; Linux limits paths to 4 kB."""
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class Compressed(ValueError):
    """A compressed file in place of a tar."""


class Member(NamedTuple):
    """One file of a tar: its content is bytes `offset` to `offset` + `size`."""

    name: str
    offset: int
    size: int


class TarBytes(Protocol):
    """The bytes of a tar."""

    @property
    def size(self) -> int: ...

    def read(self, at: int, size: int) -> bytes:
        """The bytes `at` to `at` + `size`, which are within the tar."""
        ...


class InMemory:
    """A tar in memory."""

    def __init__(self, data: Buffer) -> None:
        self._data, self.size = data, len(data)

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._data[at : at + size])


class Forward:
    """A tar that is read once, in ascending order of offsets, with a window of it in memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.size = file, size
        self._window, self._start = b"", 0
        self._digest = hashlib.sha256()

    def read(self, at: int, size: int) -> bytes:
        """As `TarBytes.read`; bytes in front of the last ones returned may be gone. Raises `ValueError` where the file ends."""
        parts = []
        while size:
            offset = at - self._start
            if offset < 0:
                raise ValueError(f"byte {at} was read before")
            if offset >= len(self._window):
                self._advance()
                continue
            part = self._window[offset : offset + size]
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> str:
        """Read the rest; the SHA-256 of the complete tar."""
        while self._start + len(self._window) < self.size:
            self._advance()
        return self._digest.hexdigest()

    def _advance(self) -> None:
        self._start += len(self._window)
        self._window = self._file.read(_WINDOW)
        if not self._window:
            raise ValueError(f"it ends after {self._start} bytes, expected {self.size}")
        self._digest.update(self._window)


def members(data: Buffer) -> list[Member]:
    """The files of a tar (USTAR, POSIX pax or GNU), in order. Raises `ValueError` as `walk` does."""
    return list(walk(InMemory(data)))


def walk(tar: TarBytes) -> Iterator[Member]:
    """The files of a tar, in order, each while `tar` can still read its content.

    Raises `ValueError` for a header with a wrong checksum, for truncated data, for a missing end-of-archive marker, for links
    and devices, and for a compressed file. Checksums are verified in groups: the last members may be of a corrupt header
    until the iteration has ended.
    """
    headers = _Headers()
    try:
        yield from _walk(tar, headers)
    except ValueError:
        headers.verify()  # the first corrupt header is the cause, not where it leads
        raise
    headers.verify()


def _walk(tar: TarBytes, headers: _Headers) -> Iterator[Member]:
    at, total, read, add = 0, tar.size, tar.read, headers.add
    extended: dict[str, str] = {}
    while at < total:
        header = read(at, min(BLOCK, total - at))
        if not header[0]:  # the end-of-archive marker, or corruption that is detected below
            break
        if len(header) < BLOCK:
            raise _packed(header) or ValueError(f"it ends after {total} bytes without the end-of-archive marker")
        add(at, header)
        kind = header[156]
        name, size, start = _name(header), _size(header, at), at + BLOCK
        if extended and kind not in _EXTENDED:
            name, size = extended.get("path", name), int(extended.get("size", size))
            extended = {}
        at = start + -(-size // BLOCK) * BLOCK
        if at > total:
            raise ValueError(f"it ends inside {name}, after {total} bytes")
        if size > _LARGE:
            headers.verify()
        if kind in _EXTENDED:
            if size > _MAX_EXTENDED:
                raise ValueError(f"the extended header at byte {start} is corrupt or of an unknown kind")
            extended |= _extension(kind, tar.read(start, size), start)
        elif kind == _FOLDER or (kind == 0 and name.endswith("/")):
            continue
        elif kind in _FILE:
            yield Member(name, start, size)
        else:  # skipping a link to an image would drop a sample silently
            raise ValueError(f"{name} is not a regular file")
    tail = at
    while tail < total:
        size = min(BLOCK if tail == at else _WINDOW, total - tail)
        if (header if tail == at else tar.read(tail, size)).strip(b"\0"):
            raise ValueError(f"the header at byte {at} is corrupt")
        tail += size
    if total - at < 2 * BLOCK:
        raise ValueError(f"it ends after {total} bytes without the end-of-archive marker")


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _size(header: bytes, at: int) -> int:
    field = header[124:136]
    if field[0] == 0x80:  # GNU base-256, for files of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if not digits.isdigit():
        raise ValueError(f"the header at byte {at} is corrupt")
    return int(digits, 8)


def _extension(kind: int, content: bytes, at: int) -> dict[str, str]:
    """The fields that an extended header sets for the next entry."""
    if kind == ord("K") or (kind == ord("g") and b"path=" not in content and b"size=" not in content):
        return {}
    if kind == ord("L"):
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    fields: dict[str, str] = {}
    while content and kind == ord("x"):
        length, blank, _ = content.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 10 else 0
        name, equals, value = content[len(length) + 1 : size - 1].partition(b"=")
        if not (blank and equals and content[size - 1 : size] == b"\n") or name.startswith(b"GNU.sparse"):
            break
        fields[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        content = content[size:]
    if content or not fields.get("size", "0").encode().isdigit():
        raise ValueError(f"the extended header at byte {at} is corrupt or of an unknown kind")
    return fields


class _Headers:
    """Headers whose checksums have not been verified yet."""

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._blocks: list[bytes] = []

    def add(self, at: int, block: bytes) -> None:
        self._offsets.append(at)
        self._blocks.append(block)
        if len(self._blocks) == _PENDING_HEADERS:
            self.verify()

    def verify(self) -> None:
        """Raise `ValueError` for the first header with a wrong checksum."""
        if not self._blocks:
            return
        offsets, self._offsets = self._offsets, []
        blocks, self._blocks = self._blocks, []
        found = np.frombuffer(bytearray().join(blocks), np.uint8).reshape(-1, BLOCK)
        fields = found[:, _CHECKSUM].copy()
        found[:, _CHECKSUM] = ord(" ")
        digits = fields[:, :6] - ord("0")  # the usual form: six digits and a NUL
        usual = (digits < 8).all(1) & (fields[:, 6] == 0)
        right = usual & (digits @ _POWERS == _sums(found))
        for number in np.flatnonzero(~right):
            field = fields[number].tobytes().strip(b"\0 ")
            signed = int(found[number].view(np.int8).sum(dtype=np.int64))  # some old writers sum signed bytes
            if not re.fullmatch(rb"[0-7]+", field) or int(field, 8) not in (int(found[number].sum()), signed):
                raise _packed(blocks[number]) or ValueError(f"the header at byte {offsets[number]} is corrupt")


def _packed(block: bytes) -> Compressed | None:
    """The error, where a block that is not an intact header starts a compressed file."""
    kind = next((kind for magic, kind in _PACKED.items() if block.startswith(magic)), None)
    return Compressed(f"it is compressed ({kind}), not a plain tar") if kind else None


def _sums(blocks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The sum of each row's bytes, by SIMD within 64-bit words: four 16-bit lanes, which do not overflow."""
    words = blocks.view(np.uint64)
    lanes = ((words & _LANES) + ((words >> np.uint64(8)) & _LANES)).sum(1)
    return lanes.view(np.uint16).reshape(-1, 4).sum(1, dtype=np.int64)
