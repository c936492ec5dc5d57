"""Faults that a folder must survive: killed writers, full and read-only disks, foreign files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from adainf.errors import AdaInfError, BadInput
from adainf.storage import NotFound, PreconditionFailed, open_store
from adainf.storage.local import LocalStore

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run"


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".tmp").glob("*") if path.name != "lock")


def test_opening_and_reading_make_no_folder(root: Path) -> None:
    store = LocalStore(str(root))
    assert list(store.list("a/")) == []
    assert store.head("a") is None
    store.delete("a")
    assert not root.exists()


def test_objects_are_plain_files_and_the_stores_own_files_are_hidden(root: Path) -> None:
    store = LocalStore(str(root))
    store.put("a/b", b"1")
    assert (root / "a" / "b").read_bytes() == b"1"
    (root / "a" / "c").write_bytes(b"by hand")
    assert [info.key for info in store.list()] == ["a/b", "a/c"]
    assert list(store.list(".tmp")) == []
    assert leftovers(root) == []


def test_delete_removes_empty_folders_up_to_the_root(root: Path) -> None:
    store = LocalStore(str(root))
    store.put("a/b/c/d", b"1")
    store.put("a/e", b"1")
    store.delete("a/b/c/d")
    assert sorted(path.name for path in (root / "a").iterdir()) == ["e"]
    store.delete("a/e")
    assert [path.name for path in root.iterdir()] == [".tmp"]


def test_a_chdir_does_not_move_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put("a", b"1")
    assert (tmp_path / "run" / "a").read_bytes() == b"1"
    assert store.uri == "run"


# Killed writers

DIES = """
import os, signal, sys
from adainf.storage import open_store
root, method, call, number = sys.argv[1:]
store = open_store(root)
real, left = getattr(os, call), [int(number)]
def die(*args, **kwargs):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(os, call, die)
new = b"new" * 2000
{"put": store.put, "put_if_absent": store.put_if_absent}[method]("a/b", new)
"""


@pytest.mark.parametrize(
    ("method", "call", "number", "published"),
    [
        ("put", "fsync", 1, False),
        ("put", "utime", 1, False),
        ("put", "utime", 2, False),
        ("put", "replace", 1, False),
        ("put", "unlink", 1, True),
        ("put", "fsync", 2, True),
        ("put_if_absent", "fsync", 1, False),
        ("put_if_absent", "mkdir", 1, False),
        ("put_if_absent", "link", 1, False),
        ("put_if_absent", "unlink", 1, True),
    ],
)
def test_a_writer_killed_at_a_certain_call(root: Path, method: str, call: str, number: int, published: bool) -> None:
    store = LocalStore(str(root))
    store.put("other", OLD)
    if method == "put":
        store.put("a/b", OLD)
    done = subprocess.run([sys.executable, "-c", DIES, str(root), method, call, str(number)], check=False)
    assert done.returncode == -signal.SIGKILL
    before = OLD if method == "put" else None
    head = store.head("a/b")
    assert (store.get("a/b") if head else None) == (NEW if published else before)
    store = LocalStore(str(root))
    assert leftovers(root) == []
    assert (store.get("a/b") if head else None) == (NEW if published else before)
    assert store.get("other") == OLD
    store.put("a/b", b"again")  # and no lock is left behind
    assert store.get("a/b") == b"again"


WRITES = """
import hashlib, os, sys
from adainf.storage import open_store
store = open_store(sys.argv[1])
while True:
    body = os.urandom(2 << 20)
    print(flush=True)
    store.put("a/b", hashlib.sha256(body).digest() + body)
"""


def test_writers_killed_at_any_moment_leave_no_torn_object(root: Path) -> None:
    moments = random.Random(20240)
    killed_during_write = 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITES, str(root)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(moments.randint(1, 3)):
                writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.008))  # a random moment to kill it, not a wait
            writer.kill()
        killed_during_write += bool(leftovers(root))
        store = LocalStore(str(root))
        assert leftovers(root) == []
        if store.head("a/b"):
            data = store.get("a/b")
            assert len(data) == 32 + (2 << 20)
            assert hashlib.sha256(data[32:]).digest() == data[:32]
    assert killed_during_write, "no writer was killed during a write: the test tests nothing"


WAITS = """
import os, sys
from adainf.storage import open_store
store, real = open_store(sys.argv[1]), os.fsync
store.put("first", b"")  # makes the folders
def wait(fd):
    os.fsync = real
    print("writing", flush=True)
    sys.stdin.readline()
os.fsync = wait
store.put("a", b"written")
"""


def test_the_sweep_keeps_the_temp_file_of_a_live_writer(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        store = LocalStore(str(root))
        assert len(leftovers(root)) == 1
        assert [info.key for info in store.list()] == ["first"]
        writer.stdin.write("\n")
    assert writer.returncode == 0
    assert store.get("a") == b"written"
    assert leftovers(root) == []


def test_a_temp_file_swept_before_its_writer_could_lock_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(root))
    real = fcntl.flock
    swept: list[str] = []

    def flock(fd: int, how: int) -> None:
        if not swept:
            swept.extend(leftovers(root))
            LocalStore(str(root))
            assert leftovers(root) == []
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    store.put("a", b"1")
    assert len(swept) == 1
    assert store.get("a") == b"1"


def test_opening_and_deleting_beside_busy_writers(root: Path) -> None:
    def write(number: int) -> None:
        store = LocalStore(str(root))  # sweeps
        for i in range(30):
            store.put(f"folder/{number}", b"%d" % i)
            assert store.get(f"folder/{number}") == b"%d" % i
            store.delete(f"folder/{number}")  # and the folder, at times, while others write into it

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert leftovers(root) == []
    assert not (root / "folder").exists()


# ETags


def test_etags_differ_with_a_frozen_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(root))
    first = store.put("a", b"0").etag
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    etags = {first}
    for i in range(5):
        etags.add(store.put("a", b"%d" % i).etag)
        store.delete("a")  # the next object may well get the same inode
    assert len(etags) == 6


def test_etags_differ_on_a_disk_with_coarse_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = LocalStore(str(root)), os.utime

    def utime(fd: int, ns: tuple[int, int]) -> None:
        coarse = ns[1] // 2_000_000_000 * 2_000_000_000
        real(fd, ns=(coarse, coarse))

    monkeypatch.setattr(os, "utime", utime)
    infos = [store.put("a", b"%d" % i) for i in range(5)]
    assert len({info.etag for info in infos}) == 5
    assert store.head("a") == infos[-1]


def test_a_change_by_hand_changes_the_etag(root: Path) -> None:
    store = LocalStore(str(root))
    info = store.put("a", b"1")
    (root / "a").write_bytes(b"2")
    with pytest.raises(PreconditionFailed):
        store.put_if_match("a", b"3", info.etag)


# Errors that the user must fix


def bad_input(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.exit_code == 64
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_where_the_run_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for uri in (tmp_path / "file", tmp_path / "file" / "run"):
        assert str(uri) in bad_input(partial(LocalStore, str(uri)))


@pytest.mark.parametrize("method", ["put", "put_if_absent"])
def test_files_and_folders_in_each_others_place(root: Path, method: str) -> None:
    store = LocalStore(str(root))
    store.put("file", OLD)
    store.put("folder/file", OLD)
    put = getattr(store, method)
    for key in ("file/a", "file/a/b", "folder"):
        assert str(root / key) in bad_input(partial(put, key, NEW))
    for key in ("file/a", "file/a/b", "folder"):
        assert store.head(key) is None
        with pytest.raises(NotFound):
            store.get(key)
        store.delete(key)
    assert [info.key for info in store.list()] == ["file", "folder/file"]
    assert leftovers(root) == []


@pytest.mark.parametrize("uri", ["", "gs://bucket/run", "S3://bucket/run"])
def test_uris_that_are_not_a_folder(uri: str) -> None:
    message = bad_input(lambda: open_store(uri))
    assert "s3://bucket/prefix" in message
    assert "--run" not in message  # commands without --run open stores, too


def test_a_name_too_long_for_the_disk(root: Path) -> None:
    assert "too long" in bad_input(lambda: LocalStore(str(root)).put("x" * 300, b""))


def _put_into(uri: Path) -> None:
    LocalStore(str(uri)).put("a", b"")


def test_other_file_system_errors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for uri in (tmp_path / "loop", Path("/proc/x")):
        message = bad_input(partial(_put_into, uri))
        assert str(uri) in message
        assert "; fix that path or use another folder" in message


def test_a_failing_disk_may_be_retried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(AdaInfError, match="Input/output error") as caught:
        LocalStore(str(root)).put("a", b"")
    assert caught.value.exit_code == 1


def test_a_disk_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert "locks" in bad_input(lambda: LocalStore(str(root)).put("a", b""))
    assert leftovers(root) == []


def test_a_disk_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    store = LocalStore(str(root))
    store.put_if_absent("a", OLD)
    with pytest.raises(PreconditionFailed):
        store.put_if_absent("a", NEW)
    assert store.get("a") == OLD


def test_a_folder_of_another_user(root: Path) -> None:
    store = LocalStore(str(root))
    store.put("secret/a", OLD)
    (root / "secret").chmod(0o500)
    (root / "secret" / "a").chmod(0o400)
    child = os.fork()
    if child == 0:  # root may read and write everything, so become nobody
        try:
            if os.getuid() == 0:
                for path in (root / "secret", root / "secret" / "a"):
                    path.chmod(0)
                os.chdir("/")
                os.setgid(65534)
                os.setuid(65534)
            else:
                (root / "secret" / "a").chmod(0)
            for call in (lambda: store.get("secret/a"), lambda: store.put("secret/b", NEW)):
                assert "may not be read or written" in bad_input(call)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (root / "secret").chmod(0o700)


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from adainf.errors import BadInput
from adainf.storage import open_store
root = Path(sys.argv[1]) / "run"
def refused(call):
    try:
        call()
    except BadInput as error:
        return str(error)
    raise SystemExit("nothing was refused")
store = open_store(str(root))
store.put("kept", b"k" * 10000)
for method in (store.put, store.put_if_absent):
    message = refused(lambda: method("big/a", b"b" * 1000000))
    assert "no space left" in message and str(root / "big/a") in message and "1000000 bytes" in message, message
    assert "run the same command again" in message, message
assert "no space" in refused(lambda: store.put("kept", b"K" * 100000))
assert [info.key for info in store.list()] == ["kept"] and store.get("kept") == b"k" * 10000
assert [path.name for path in (root / ".tmp").iterdir()] == ["lock"]
store.put("small/b", b"fits still")
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
for call in (lambda: store.put("kept", b""), lambda: store.put_if_absent("new", b""), lambda: store.delete("kept")):
    assert "Read-only" in refused(call)
store = open_store(str(root))
assert store.get("small/b") == b"fits still"
print("all refused")
"""


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["sh", "-ec", 'mount -t tmpfs -o size=64k tmpfs "$1"; shift; exec "$@"', "sh", str(disk)]
    for unshare in (["unshare", "-m"], ["unshare", "-Urm"]):  # a mount that nobody else sees, gone with the process
        if subprocess.run([*unshare, *mount, "true"], check=False, capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("neither root nor user namespaces may mount a small tmpfs here")
    command = [*unshare, *mount, sys.executable, "-c", SMALL_DISK, str(disk)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "all refused\n"), done.stderr
