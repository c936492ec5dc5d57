"""The node cache of images, decoded or encoded: one folder per split, shared by all processes of the node.

A folder is named by a digest of everything that determines its bytes: the SHA-256 of every shard, and the size that images are
resized to. So sets whose shards have the same names never collide, and a changed set gets a new folder. The digest includes
the boot ID of the machine: after a power failure the disk may hold ready marks of pages that were never written.

The limit holds for all processes of the node together. An entry reserves its space when it is opened; where sizes are known
only later, each file is allocated before it is written. Both happen under one lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adainf.errors import BadInput
from adainf.pipeline.records import canonical_json, sha256
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.locks import ByteLocks

FORMAT = 1
_IN_USE, _RESERVED = "in-use", "reserved"
_BLOCK = 4096
_ADVICE = "set ADAINF_CACHE to a larger disk, raise ADAINF_CACHE_BYTES or cache_bytes"


def default_folder() -> Path:
    """``$ADAINF_CACHE``, or ``adainf`` in the user's cache folder. Raises `BadInput` where the user has no home."""
    configured = os.environ.get("ADAINF_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "adainf"
    except RuntimeError:  # as in a container whose UID has no name
        raise BadInput("this user has no home folder for the image cache; set ADAINF_CACHE to a folder") from None


def default_limit_bytes() -> int | None:
    """``$ADAINF_CACHE_BYTES``, or None for no limit. Raises `BadInput` for anything but a number."""
    text = os.environ.get("ADAINF_CACHE_BYTES")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"ADAINF_CACHE_BYTES is {text!r}, not a number; set it to a number of bytes, or unset it")
    return int(text)


def _check_private(folder: Path) -> None:
    """Raise `BadInput` where another user could replace cached images, which are not verified again."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        problem = f"belongs to user {status.st_uid}, who could change cached images"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = "is writable by other users, who could change cached images"
    else:
        return
    raise BadInput(f"the cache folder {folder} {problem}; set ADAINF_CACHE to a new folder in it, or run chmod go-w {folder}")


class CacheTooSmall(BadInput):
    """The cache has no space for an entry."""


class Cache:
    """The cache folder, limited to `limit_bytes` (None: by the disk only)."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = (folder or default_folder()).absolute()
        self._limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_private(self.folder)
            self.fetches, self._space = ByteLocks(self.folder / "fetches"), ByteLocks(self.folder / "space")
        except OSError as error:
            raise BadInput(
                f"the cache folder {self.folder} cannot be used ({error.strerror}); set ADAINF_CACHE to a writable folder"
            ) from None
        self._opened: list[Entry] = []

    def entry(self, source: ShardFolder, split: str, settings: dict[str, object], required_bytes: int) -> Entry:
        """The folder of a split, with space for `required_bytes`. Raises `CacheTooSmall`."""
        described = source.split(split)
        facts = {
            "format": FORMAT,
            "boot": _boot(),
            "tars": described.tar_sha256s,
            "images": described.shard_images,
            **settings,
        }
        if source.shards.indexed_in_place:  # other rules select other images of the same tars
            facts["indexes"] = described.index_sha256s
        if source.shards.originals is not None:  # other settings decode other pixels of the same tars
            facts["originals"] = source.shards.originals.model_dump()
        path, encoded = self.folder / sha256(canonical_json(facts))[:32], "encoded" in settings
        entry = Entry(path, f"{source.uri}, split {split}", encoded)
        with self._space.any_of(1):
            try:
                advice = "or set window_shards to cache a window of shards at a time"
                self._make_space(
                    entry, lambda: required_bytes - _used_bytes(entry.path), advice, self._evict_unused, self._evict_shard
                )
                _reserve(entry.path, required_bytes)
            except BaseException:
                entry.close()
                raise
        self._opened.append(entry)
        return entry

    def allocate(self, entry: Entry, path: Path, size_bytes: int) -> None:
        """Create a file of the entry with disk space for all its bytes. Raises `BadInput` where the cache is too small."""
        with self._space.any_of(1):
            advice = "or lower window_shards: two windows must fit"
            self._make_space(entry, lambda: in_blocks(size_bytes), advice, self._evict_shard, self._evict_unused)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size_bytes)
            except OSError as error:
                raise _not_writable(path, error) from None
            finally:
                os.close(fd)

    def close(self) -> None:
        self.fetches.close()
        self._space.close()

    def _make_space(
        self, entry: Entry, missing_bytes: Callable[[], int], advice: str, *evictions: Callable[[Entry], bool]
    ) -> None:
        """Evict, by these means in turn, until there is space for what is missing of the entry."""
        while (missing := missing_bytes()) > (available := self._available_bytes(entry)):
            if not any(evict(entry) for evict in evictions):
                needed = _used_bytes(entry.path) + missing
                kind = "encoded" if entry.encoded else "decoded"
                raise CacheTooSmall(
                    f"{entry.what}: its {kind} images need {needed:,} bytes, {missing:,} more than cached, and the "
                    f"cache {self.folder} has {max(available, 0):,} available; {_ADVICE}, {advice}"
                )

    def _evict_unused(self, entry: Entry) -> bool:
        """Remove the least recently used entry that no process uses; whether there was one."""
        return any(map(_evict, sorted((path for path in self._entries() if path != entry.path), key=_last_used)))

    def _evict_shard(self, _: Entry) -> bool:
        """Remove the least recently used shard file that this process does not need; whether there was one."""
        oldest = min((file for entry in self._opened for file in entry.evictable()), default=None)
        if oldest:
            oldest[1].unlink(missing_ok=True)
        return oldest is not None

    def _entries(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir()]

    def _available_bytes(self, entry: Entry) -> int:
        """What the entry may add to the bytes that it uses; others keep what they have reserved."""
        others = [(_used_bytes(path), _reserved_bytes(path)) for path in self._entries() if path != entry.path]
        free = shutil.disk_usage(self.folder).free - sum(max(0, reserved - used) for used, reserved in others)
        if self._limit_bytes is None:
            return free
        return min(free, self._limit_bytes - sum(map(max, others)) - _used_bytes(entry.path))


class Entry:
    """One folder of the cache, protected from eviction while this process has it open."""

    def __init__(self, path: Path, what: str, encoded: bool = False) -> None:
        self.path, self.what, self.encoded = path, what, encoded
        self.needed: set[str] = set()
        """Names of shard files that are not evicted."""
        self._fd = _open_in_use(path)
        self.shard_locks = ByteLocks(path / "fills")
        """Lock n is held by the thread that prefetches shard n."""

    def evictable(self) -> list[tuple[int, Path]]:
        """(time of last use, path) of the shard files that this process does not need, the oldest first."""
        found, needed = [], self.needed
        for path in self.path.glob("*.shard"):
            with suppress(FileNotFoundError):
                if path.name not in needed:
                    found.append((path.stat().st_mtime_ns, path))
        return sorted(found)

    def close(self) -> None:
        self.shard_locks.close()
        os.close(self._fd)


def in_blocks(size_bytes: int) -> int:
    """The disk space of a file of that size."""
    return -(-size_bytes // _BLOCK) * _BLOCK


def write_at(path: Path, values: NDArray[Any], offset_bytes: int) -> None:
    """Write an array into a file. Raises `BadInput` for a full disk, which through a map would kill the process by SIGBUS."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        rest = np.ascontiguousarray(values).data.cast("B")
        while rest:
            written = os.pwrite(fd, rest, offset_bytes)
            rest, offset_bytes = rest[written:], offset_bytes + written
    except OSError as error:
        raise _not_writable(path, error) from None
    finally:
        os.close(fd)


def _not_writable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be written ({error.strerror}); free some space or set ADAINF_CACHE to another disk")


def _open_in_use(path: Path) -> int:
    while True:
        path.mkdir(exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):  # evicted in between
            fd = os.open(path / _IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                os.utime(fd)  # the time of last use
                return fd
            os.close(fd)


def _evict(path: Path) -> bool:
    """Remove the entry unless a process uses it; whether it was removed."""
    try:
        fd = os.open(path / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / _IN_USE).unlink(missing_ok=True)  # first: a process that waits for the lock sees that the entry is gone
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):
        return (path / _IN_USE).stat().st_mtime
    return 0.0


def _reserve(path: Path, size_bytes: int) -> None:
    """The reservation is the length of a sparse file."""
    fd = os.open(path / _RESERVED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
    finally:
        os.close(fd)


def _reserved_bytes(path: Path) -> int:
    with suppress(FileNotFoundError):
        return (path / _RESERVED).stat().st_size
    return 0


def _used_bytes(path: Path) -> int:
    """Disk usage of the folder; a sparse file uses less than its length."""
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_blocks * 512
    return total


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
