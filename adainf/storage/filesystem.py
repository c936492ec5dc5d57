"""File system operations of `LocalStore`, and their error messages."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adainf.errors import AdaInfError, BadInput

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY}
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_FAILING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


def make_folder(path: Path) -> None:
    """Create the folder and its parents; flush each new entry to disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "", str(path))
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Flush the folder's entries to disk, so that they survive a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not support it and do not need it
            raise
    finally:
        os.close(fd)


def stat_file(path: Path) -> os.stat_result | None:
    """The file's status, or None if there is no file (a folder does not count)."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISDIR(found.st_mode) else found


def move_if_absent(temp: Path, path: Path) -> None:
    """Publish `temp` as `path`. Raises `FileExistsError` if that exists; the caller holds the lock and has checked."""
    try:
        # Exclusive even on disks mounted twice without shared locks. The caller removes the name `temp`.
        os.link(temp, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:  # without hard links only the lock protects
            raise
        temp.replace(path)


@contextmanager
def translate_errors(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Translate `OSError`: into `BadInput` if the user must act, into `AdaInfError` if it may be transient."""
    try:
        yield
    except OSError as error:
        resume = "run the same command again to resume"
        if error.errno in _NO_SPACE:
            raise BadInput(
                f"no space left for {path} ({needed_bytes} bytes needed); free some space or use another folder; {resume}"
            ) from None
        if error.errno in _NO_ACCESS:
            raise BadInput(
                f"{error.filename or path} may not be read or written ({error.strerror}); fix its owner, mode or mount, "
                f"or use another folder; {resume}"
            ) from None
        if error.errno in _NO_FOLDER:
            raise BadInput(
                f"{path}: a file is in the place of a folder, or a folder in the place of a file; move it away or use "
                "another folder"
            ) from None
        if error.errno in _NO_LOCKS:
            raise BadInput(
                f"the disk of {path} does not support file locks; mount it with them (NFS: lockd, Lustre: -o flock) or use "
                "another folder"
            ) from None
        if error.errno == errno.ENAMETOOLONG:
            raise BadInput(f"the name {path} is too long for its disk; use a shorter path") from None
        what = f"{error.filename or path}: {error.strerror or type(error).__name__}"
        if error.errno in _FAILING:
            raise AdaInfError(f"{what}; the disk or this machine is failing, check the system log; {resume}") from None
        raise BadInput(f"{what}; fix that path or use another folder") from None


class StoreFile(io.FileIO):
    """A file that owns its descriptor and translates the errors of its reads."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd)
        self._path = path

    def readinto(self, buffer: Any) -> int:
        """As `io.FileIO`."""
        with translate_errors(self._path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """As `io.FileIO`."""
        with translate_errors(self._path):
            return super().readall()
