"""What `LocalStore` asks of the disk, and what it says when the disk refuses."""

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
    """Make the folder and those above it, each flushed into the one that holds it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "", str(path))
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make the names in the folder outlive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks cannot, and need not
            raise
    finally:
        os.close(fd)


def stat_file(path: Path) -> os.stat_result | None:
    """The file's status, or None where there is no file (a folder is none)."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISDIR(found.st_mode) else found


def move_if_absent(temp: Path, path: Path) -> None:
    """Publish `temp` as `path` unless that exists (`FileExistsError`); the caller holds the lock and has looked."""
    try:
        # Exclusive by itself, for disks that are mounted twice without shared locks. The temp name goes with its file.
        os.link(temp, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:  # a disk without hard links has the lock alone
            raise
        temp.replace(path)


@contextmanager
def explained(path: Path, wanted_bytes: int = 0) -> Iterator[None]:
    """Turn what the disk refuses into `BadInput`, and what may pass by itself into `AdaInfError`."""
    try:
        yield
    except OSError as error:
        again = "run again and it goes on from here"
        if error.errno in _NO_SPACE:
            raise BadInput(
                f"no space left for {path} ({wanted_bytes} bytes wanted); free some space or choose another --run; {again}"
            ) from None
        if error.errno in _NO_ACCESS:
            raise BadInput(
                f"{error.filename or path} may not be read or written ({error.strerror}); mend its owner, mode or mount, "
                f"or choose another --run; {again}"
            ) from None
        if error.errno in _NO_FOLDER:
            raise BadInput(
                f"a file is where {path} needs a folder, or a folder where it needs a file; move it away or choose "
                "another --run"
            ) from None
        if error.errno in _NO_LOCKS:
            raise BadInput(
                f"the disk of {path} has no file locks; mount it with them (NFS: lockd, Lustre: -o flock) or choose "
                "another --run"
            ) from None
        if error.errno == errno.ENAMETOOLONG:
            raise BadInput(f"the name {path} is too long for this disk; choose a shorter --run") from None
        what = f"{error.filename or path}: {error.strerror or type(error).__name__}"
        if error.errno in _FAILING:
            raise AdaInfError(f"{what}; the disk or this machine is failing, look at its log; {again}") from None
        raise BadInput(f"{what}; mend that path or choose another --run") from None


class ExplainedFile(io.FileIO):
    """The file of the descriptor, which it owns; a disk that fails while it is read is explained, too."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd)
        self._path = path

    def readinto(self, buffer: Any) -> int:
        """As `io.FileIO`."""
        with explained(self._path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """As `io.FileIO`."""
        with explained(self._path):
            return super().readall()
