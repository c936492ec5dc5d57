"""The protocol that every store implements."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PROBE = ".adainf-probe-"
"""Key prefix of the objects with which `S3Store` probes a store for conditional writes."""
RESERVED = (".tmp", PROBE)
"""Reserved key prefixes: the stores' own files, which `Store.list` never returns."""


class NotFound(LookupError):
    """No object has this key."""


class PreconditionFailed(Exception):
    """The stored object is not the version to be read, or to be replaced; nothing was written."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object's key (relative to the store), size in bytes, and an ETag that changes with its content."""

    key: str
    size_bytes: int
    etag: str


class Store(Protocol):
    """Objects by key. Every put is an atomic write: a reader sees the old object or the new one, never a partial one.

    Keys are relative, "/"-separated, without empty, "." or ".." segments (`check_key`; every method raises `ValueError`
    for others). No key may be the folder of another one ("a" beside "a/b"): S3 allows that, a file system does not. Errors that
    a user can fix (no such bucket, wrong credentials, disk full) are raised as `BadInput`.
    """

    uri: str
    """The folder or ``s3://bucket/prefix`` as the user would write it; never contains credentials."""

    def open(self, key: str, etag: str | None = None, *, verify: bool = True) -> io.BufferedReader:
        """The object as a file that is read once, from its first byte to its last; it may be closed early.

        Here and below, `etag` requires that version: `PreconditionFailed` is raised for another one. `verify`: check the
        store's own checksum, if it has one; callers that check the bytes themselves need not. Raises `NotFound`. Later errors
        are raised by the reads: bytes are never missing, nor of two versions.
        """
        ...

    def get(self, key: str, *, etag: str | None = None, verify: bool = True) -> bytes:
        """The object's bytes. Raises `NotFound`."""
        ...

    def get_range(self, key: str, start_bytes: int, size_bytes: int, *, etag: str | None = None) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes`. Raises `NotFound`; `ValueError` past the end."""
        ...

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write or replace the object."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Write the object if it does not exist. One of several concurrent callers wins; the others get `PreconditionFailed`.

        Where responses were lost, several callers with the same bytes may all succeed (see `S3Store`).
        """
        ...

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectInfo:
        """Replace the object if its ETag is still `etag`, else raise `PreconditionFailed`."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag, or None if it does not exist."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (any string, not only full segments), in ascending order of key."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error if it does not exist."""
        ...


def is_key(key: str) -> bool:
    """Whether `key` is valid."""
    segments = key.split("/")
    return not (any(s in ("", ".", "..") for s in segments) or "\0" in key or key.startswith(RESERVED))


def check_key(key: str) -> None:
    """Raise `ValueError` for a key that is absolute, leaves the store, or is reserved."""
    if not is_key(key):
        raise ValueError(f"invalid key {key!r}: keys are relative, '/'-separated, without '', '.', '..' segments or '.tmp'")
