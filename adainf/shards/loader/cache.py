"""The node's cache of decoded images: one folder for each split, shared by all processes of the node.

A folder's name is a digest of what decides its bytes: the SHA-256 of every shard, and the size that images are brought to. So
two sets with shards of the same names never meet, and a set that was changed is another one. The boot of the machine is part
of it: after a power cut the disk may hold the marks of pages that were never written.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.pipeline.artifacts import canonical_json, sha256
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.locks import ByteLocks

FORMAT = 1
FETCHES_AT_ONCE = 8
"""Shards that one node fetches and decodes at the same time, over all its processes."""
_IN_USE = "in-use"


def default_folder() -> Path:
    """``$ADAINF_CACHE``, or ``adainf`` in the user's cache folder."""
    named = os.environ.get("ADAINF_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "adainf"
    except RuntimeError:  # as in a container that runs under a number without a name
        raise BadInput("this user has no home for a cache of images; set ADAINF_CACHE to a folder") from None


def default_limit_bytes() -> int | None:
    """``$ADAINF_CACHE_BYTES``, or None: as much as the disk has."""
    text = os.environ.get("ADAINF_CACHE_BYTES")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"ADAINF_CACHE_BYTES is {text!r}, no number of bytes; set it to one, or unset it")
    return int(text)


class Cache:
    """The cache folder, with at most `limit_bytes` in it (None: as much as the disk has)."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = (folder or default_folder()).absolute()
        self._limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.fetches = ByteLocks(self.folder / "fetches")
        except OSError as error:
            raise BadInput(
                f"the cache folder {self.folder} cannot be used ({error.strerror}); set ADAINF_CACHE to a folder of yours"
            ) from None

    def entry(self, source: ShardFolder, split: str, decided_by: dict[str, object], wanted_bytes: int) -> Entry:
        """The folder of a split, with room for `wanted_bytes`. Raises `BadInput` where there is none."""
        described = source.split(split)
        facts = {
            "format": FORMAT,
            "boot": _boot(),
            "tars": described.tar_sha256s,
            "images": described.shard_images,
            **decided_by,
        }
        entry = Entry(self.folder / sha256(canonical_json(facts))[:32])
        self._make_room(entry, wanted_bytes, f"{source.uri}, split {split}")
        return entry

    def close(self) -> None:
        self.fetches.close()

    def _make_room(self, entry: Entry, wanted_bytes: int, what: str) -> None:
        """Drop what no process uses, least recently used first, until the entry fits."""
        others = sorted((path for path in self._entries() if path != entry.path), key=_used_at)
        while (missing := wanted_bytes - _size_bytes(entry.path)) > (room := self._room_bytes()):
            if not any(_drop(others.pop(0)) for _ in range(len(others))):
                raise BadInput(
                    f"{what}: its decoded images take {wanted_bytes:,} bytes, {missing:,} more than now, and the cache "
                    f"{self.folder} has room for {max(room, 0):,}; set ADAINF_CACHE to a larger disk, raise its limit "
                    "(ADAINF_CACHE_BYTES), or set window_shards to hold a window of shards at a time"
                )

    def _entries(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir()]

    def _room_bytes(self) -> int:
        free = shutil.disk_usage(self.folder).free
        return free if self._limit_bytes is None else min(free, self._limit_bytes - sum(map(_size_bytes, self._entries())))


class Entry:
    """One folder of the cache, kept from being dropped while this process has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = _open_in_use(path)
        self.fills = ByteLocks(path / "fills")
        """Lock n is held by who fills shard n."""

    def close(self) -> None:
        self.fills.close()
        os.close(self._fd)


def write_at(path: Path, values: NDArray[Any], offset_bytes: int) -> None:
    """Write an array into a file. Not through a map: a full disk would end the process by a signal."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        rest = np.ascontiguousarray(values).data.cast("B")
        while rest:
            written = os.pwrite(fd, rest, offset_bytes)
            rest, offset_bytes = rest[written:], offset_bytes + written
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror}); free some space or set ADAINF_CACHE to another disk"
        ) from None
    finally:
        os.close(fd)


def _open_in_use(path: Path) -> int:
    while True:
        path.mkdir(exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):  # dropped in between
            fd = os.open(path / _IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                os.utime(fd)  # when it was used last
                return fd
            os.close(fd)


def _drop(path: Path) -> bool:
    """Remove the entry unless a process uses it."""
    try:
        fd = os.open(path / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / _IN_USE).unlink(missing_ok=True)  # first: whoever waits for the lock sees that the entry is gone
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _used_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return (path / _IN_USE).stat().st_mtime
    return 0.0


def _size_bytes(path: Path) -> int:
    """What the folder takes on the disk; files with holes take less than their length."""
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_blocks * 512
    return total


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
