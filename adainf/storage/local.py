"""Objects as files in a local folder: written to a temp file, flushed, then renamed into place under one lock.

``<root>/.tmp`` holds the store's own files: a temp file per put in progress, and ``lock``, which serializes the last step of
all puts. A writer keeps its temp file locked, so the temp files of killed writers are recognized and removed.
"""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adainf.errors import BadInput
from adainf.storage.base import NotFound, ObjectInfo, PreconditionFailed, check_key, is_key
from adainf.storage.filesystem import StoreFile, flush_folder, make_folder, move_if_absent, stat_file, translate_errors

_LOCK = "lock"


class LocalStore:
    """The store in the folder `uri`, which the first put creates. Safe for concurrent use by threads and processes, and by
    machines if the disk shares its file locks.

    An ETag is modification time and size. Every put gives its file a later time than all puts before it in this store
    (`_stamp`), so no two contents share an ETag, and `list` need not read the objects. (Inode numbers would not do: they are
    reused after a file is deleted.)

    Opening removes the temp files of killed writers. Raises `BadInput` if `uri` is a file.
    """

    def __init__(self, uri: str) -> None:
        if not uri:
            raise BadInput("the name of the folder is empty; give a folder or s3://bucket/prefix")
        self.uri = uri
        self._root = Path(uri).absolute()  # a later chdir must not move the store
        self._temp = self._root / ".tmp"
        with translate_errors(self._root):
            if stat_file(self._root) is not None:
                raise BadInput(f"{self._root} is a file, not a folder; move it away or give another folder")
            self._sweep()

    def open(self, key: str, etag: str | None = None, *, verify: bool = True) -> io.BufferedReader:
        """The object as a file. A file system has no checksum to `verify`.

        Raises `NotFound`, `PreconditionFailed`; `BadInput` if it may not be read.
        """
        return io.BufferedReader(self._open(key, etag))

    def get(self, key: str, *, etag: str | None = None, verify: bool = True) -> bytes:
        """The object's bytes. Raises as `open` does."""
        with self._open(key, etag) as file:
            return file.readall()

    def get_range(self, key: str, start_bytes: int, size_bytes: int, *, etag: str | None = None) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes`. Raises as `open` does; `ValueError` past the end."""
        with self.open(key, etag) as file:
            total = os.fstat(file.fileno()).st_size
            if start_bytes < 0 or size_bytes < 0 or start_bytes + size_bytes > total:
                raise ValueError(f"{self._path(key)} has {total} bytes, not {size_bytes} from {start_bytes}")
            file.seek(start_bytes)
            return file.read(size_bytes)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write or replace the object. Raises `BadInput` if the disk is full or the folder may not be written."""
        return self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Write the object if it does not exist. Raises `PreconditionFailed`, and as `put` does."""
        return self._write(key, data, absent=True)

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectInfo:
        """Replace the object if its ETag is still `etag`. Raises `PreconditionFailed`, and as `put` does."""
        return self._write(key, data, etag=etag)

    def link(self, key: str, source: LocalStore) -> bool:
        """Make `key` a hard link to that object of `source`; False where it exists, or the disk has no such links.

        Its ETag is that of the source: a later put gives `key` a file of its own, and replaces neither.
        """
        path, there = self._path(key), source._path(key)
        with translate_errors(path):
            make_folder(path.parent)
            try:
                os.link(there, path)
            except OSError:
                return False
            flush_folder(path.parent)
        return True

    def links(self, key: str) -> int:
        """The number of names of the object's file in all stores; 0 if it does not exist."""
        found = stat_file(self._path(key))
        return 0 if found is None else found.st_nlink

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag, or None if it does not exist."""
        path = self._path(key)
        with translate_errors(path):
            found = stat_file(path)
        return None if found is None else _info(key, found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in ascending order of key."""
        top = self._root
        folder, slash, _ = prefix.rpartition("/")
        if slash:
            if not is_key(folder):
                return iter(())
            top = self._root / folder  # skips what cannot match
        with translate_errors(top):
            found = [(key, info) for key, info in self._walk(top) if key.startswith(prefix)]
        return iter([_info(key, info) for key, info in sorted(found, key=lambda entry: entry[0])])

    def delete(self, key: str) -> None:
        """Remove the object and the folders that become empty; no error if it does not exist."""
        path = self._path(key)
        with translate_errors(path):
            if stat_file(path) is None:
                return
            with self._locked():
                path.unlink(missing_ok=True)
                folder = path.parent
                with suppress(OSError):  # not empty, or removed concurrently
                    while folder != self._root:
                        folder.rmdir()
                        folder = folder.parent
                flush_folder(folder)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _open(self, key: str, etag: str | None) -> StoreFile:
        path = self._path(key)
        with translate_errors(path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFound(f"{path} does not exist") from None
            try:
                found = os.fstat(fd)
                if stat.S_ISDIR(found.st_mode):
                    raise NotFound(f"{path} is a folder, not an object")
                if etag is not None and _etag(found) != etag:
                    raise PreconditionFailed(f"{path} is not the requested version: its ETag is not {etag}")
                return StoreFile(fd, path)
            except BaseException:
                os.close(fd)
                raise

    def _walk(self, top: Path) -> Iterator[tuple[str, os.stat_result]]:
        for folder, _, names in os.walk(top, onerror=_reraise):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                found = stat_file(path)  # None: deleted meanwhile
                if found is not None and is_key(key):  # .tmp is reserved
                    yield key, found

    def _write(self, key: str, data: bytes, *, absent: bool = False, etag: str | None = None) -> ObjectInfo:
        path = self._path(key)
        with translate_errors(path, needed_bytes=len(data)):
            make_folder(self._temp)
            with self._temp_file() as (temp, fd):
                with open(fd, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(fd)  # before the rename: a power failure must not leave a name without bytes
                with self._locked() as lock:
                    current = stat_file(path)
                    if (absent and current) or (etag is not None and (current is None or _etag(current) != etag)):
                        raise PreconditionFailed(f"{path} {'exists' if absent else 'was changed or removed'}")
                    _stamp(fd, lock)
                    make_folder(path.parent)
                    self._publish(temp, path, absent)
                info = _info(key, os.fstat(fd))
            with suppress(FileNotFoundError):  # deleted meanwhile, with its folder
                flush_folder(path.parent)
        return info

    def _publish(self, temp: Path, path: Path, absent: bool) -> None:
        if not absent:
            temp.replace(path)
            return
        try:
            move_if_absent(temp, path)
        except FileExistsError:
            if path.is_dir():
                raise
            raise PreconditionFailed(f"{path} exists") from None

    @contextmanager
    def _temp_file(self) -> Iterator[tuple[Path, int]]:
        path, fd = self._new_temp_file()
        try:
            yield path, fd
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def _new_temp_file(self) -> tuple[Path, int]:
        while True:
            path = self._temp / secrets.token_hex(8)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if path.exists():
                    return path, fd
            except OSError:
                path.unlink(missing_ok=True)
                os.close(fd)
                raise
            os.close(fd)  # removed by a sweep between open and lock

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the lock of the store; yields its descriptor."""
        make_folder(self._temp)
        # A file, not the folder itself: NFS locks only files opened for writing.
        fd = os.open(self._temp / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                yield fd
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough if a fork has copied the descriptor
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove the temp files of dead writers, which are those that can be locked."""
        with suppress(FileNotFoundError, PermissionError):  # empty store; read-only store
            for path in self._temp.iterdir():
                if path.name != _LOCK:
                    with suppress(OSError):
                        _sweep_one(path)


def _sweep_one(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its writer is alive
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _stamp(fd: int, lock: int) -> None:
    """Give the file a later modification time than all before; that of the (empty) lock file records the last one."""
    last = os.fstat(lock).st_mtime_ns
    wanted = max(time.time_ns(), last + 1)
    step = 1
    while True:
        os.utime(fd, ns=(wanted, wanted))
        kept = os.fstat(fd).st_mtime_ns
        if kept > last:
            break
        wanted += step  # a file system with coarser timestamps
        step *= 10
    os.utime(lock, ns=(kept, kept))


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, found.st_size, _etag(found))


def _reraise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # os.walk would ignore an unreadable folder
        raise error
