"""The protocol that every store implements."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PROBE = ".adainf-probe-"
"""How the key of the object begins with which `S3Store` tries out a store's conditional writes."""
RESERVED = (".tmp", PROBE)
"""No key begins so: the stores' own files, which `Store.list` never shows."""


class NotFound(LookupError):
    """There is no object with this key."""


class PreconditionFailed(Exception):
    """Another object is there than the one that was to be replaced (nothing was written) or read."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object's key (relative to the store), size in bytes, and an ETag that changes with its content."""

    key: str
    size_bytes: int
    etag: str


class Store(Protocol):
    """Whole objects by key. Every put is atomic: a reader sees the old object or the new one, never a part.

    Keys are relative, "/"-separated, without empty, "." or ".." segments (`check_key`; every method raises `ValueError`
    for others). No key may be the folder of another one ("a" beside "a/b"): S3 would take it, a disk cannot. Errors that
    a user can mend (no such bucket, wrong credentials, no free disk) are raised as `BadInput`.
    """

    uri: str
    """The folder or ``s3://bucket/prefix`` as the user would write it; never holds credentials."""

    def open(self, key: str, etag: str | None = None, *, verify: bool = True) -> io.BufferedReader:
        """The object as a file that is read once, from its first byte to its last; closed early, it reads no more.

        Here as below, `etag` asks for that version: where another one is there, `PreconditionFailed` is raised. `verify`:
        check a sum that the store itself keeps, if it does; callers that check the bytes need no second look. Raises
        `NotFound`. What goes wrong later is raised by reading on: never are bytes missing, or of two versions.
        """
        ...

    def get(self, key: str, *, etag: str | None = None, verify: bool = True) -> bytes:
        """The object's bytes. Raises `NotFound`."""
        ...

    def get_range(self, key: str, start_bytes: int, size_bytes: int, *, etag: str | None = None) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes` on. Raises `NotFound`; `ValueError` past the end."""
        ...

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write or replace the object."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Write the object unless one is there. Of several concurrent callers one wins; the others get `PreconditionFailed`.

        Callers with the same bytes may all be told that they won, where answers were lost on the way (see `S3Store`).
        """
        ...

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectInfo:
        """Replace the object if its ETag is still `etag`, else raise `PreconditionFailed`."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag, or None where there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (any string, not only whole segments), in ascending order of key."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""
        ...


def is_key(key: str) -> bool:
    """Whether `key` is one that a store accepts."""
    segments = key.split("/")
    return not (any(s in ("", ".", "..") for s in segments) or "\0" in key or key.startswith(RESERVED))


def check_key(key: str) -> None:
    """Raise `ValueError` for a key that is absolute, leaves the store, or belongs to the store itself."""
    if not is_key(key):
        raise ValueError(f"{key!r} is no key: keys are relative, '/'-separated, without '', '.', '..' segments or '.tmp'")
