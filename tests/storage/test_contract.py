"""The contract of `Store`, checked for each implementation: a folder, and a real S3 server."""

from __future__ import annotations

import pickle
import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adainf.storage import NotFound, ObjectInfo, PreconditionFailed, Store, open_store

NewStore = Callable[[], Store]


@pytest.fixture(params=["local", "s3"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Makes empty stores of one kind."""
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_env")
    return lambda: open_store(f"{root}/run-{secrets.token_hex(8)}")


@pytest.fixture
def store(new_store: NewStore) -> Store:
    return new_store()


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert list(store.list()) == []
    assert store.head("a") is None
    with pytest.raises(NotFound, match="a"):
        store.get("a")
    with pytest.raises(NotFound):
        store.open("a")
    with pytest.raises(NotFound):
        store.get_range("a", 0, 1)
    with pytest.raises(NotFound):
        store.get_range("a", 0, 0)
    store.delete("a")
    store.delete("a/b")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "one byte", "1.2 MB"])
def test_put_then_get(store: Store, data: bytes) -> None:
    info = store.put("real/0.tar", data)
    assert info == ObjectInfo("real/0.tar", len(data), info.etag)
    assert store.get("real/0.tar") == data
    assert store.head("real/0.tar") == info
    assert list(store.list()) == [info]
    assert open_store(store.uri).get("real/0.tar") == data


def test_an_object_is_also_a_file(store: Store) -> None:
    data = bytes(range(256)) * 5000
    info = store.put("a", data)
    store.put("empty", b"")
    with store.open("a", info.etag, verify=False) as file:
        assert [file.read(3), file.read(100_000)] == [data[:3], data[3:100_003]]
        rest = bytearray(2 * len(data))
        assert file.readinto(rest) == len(data) - 100_003
        assert rest[: len(data) - 100_003] == data[100_003:]
        assert file.read(1) == file.read() == b""
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    with store.open("a") as file:
        assert file.read() == data
    with store.open("empty") as file:
        assert file.read() == b""
    with pytest.raises(NotFound):
        store.open("b")


def test_a_read_of_a_version_refuses_another(store: Store) -> None:
    old = store.put("a", b"old").etag
    reads: list[Callable[[str], object]] = [
        lambda etag: store.open("a", etag).read(),
        lambda etag: store.get("a", etag=etag),
        lambda etag: store.get_range("a", 0, 3, etag=etag),
        lambda etag: store.get_range("a", 0, 0, etag=etag),
    ]
    assert [read(old) for read in reads] == [b"old", b"old", b"old", b""]
    new = store.put("a", b"new").etag
    for read in reads:
        with pytest.raises(PreconditionFailed, match="a"):
            read(old)
    assert [read(new) for read in reads] == [b"new", b"new", b"new", b""]


def test_put_replaces_and_the_etag_changes(store: Store) -> None:
    etags = [store.put("a", b"same length %03d" % i).etag for i in range(20)]
    assert len(set(etags)) == 20
    assert store.get("a") == b"same length 019"
    assert store.put("a", b"shorter").size_bytes == 7
    assert store.get("a") == b"shorter"


@pytest.mark.parametrize("key", ["ünï/名前 🙂.png", "a b+c%20&=?#;.json", "x" * 200, "a.b/..c/d..", ".hidden/file"])
def test_unusual_keys(store: Store, key: str) -> None:
    info = store.put(key, b"1")
    assert store.get(key) == b"1"
    assert list(store.list()) == [info]
    assert [found.key for found in store.list(key)] == [key]
    assert store.put_if_match(key, b"2", info.etag).key == key
    store.delete(key)
    assert store.head(key) is None


INVALID_KEYS = ["", "/a", "a/", "a//b", "./a", "a/.", "..", "../a", "a/../b", ".tmp", ".tmp/a", ".adainf-probe-1", "a\0b"]


def test_invalid_keys_are_refused_by_every_method(store: Store) -> None:
    calls: list[Callable[[str], object]] = [
        lambda key: store.open(key),
        store.get,
        store.head,
        store.delete,
        lambda key: store.get_range(key, 0, 0),
        lambda key: store.put(key, b""),
        lambda key: store.put_if_absent(key, b""),
        lambda key: store.put_if_match(key, b"", "e"),
    ]
    for key in INVALID_KEYS:
        for call in calls:
            with pytest.raises(ValueError, match="invalid key"):
                call(key)
    assert list(store.list()) == []


def test_get_range(store: Store) -> None:
    store.put("a", b"0123456789")
    store.put("empty", b"")
    assert store.get_range("a", 0, 10) == b"0123456789"
    assert store.get_range("a", 3, 4) == b"3456"
    assert store.get_range("a", 9, 1) == b"9"
    assert store.get_range("a", 5, 0) == b""
    assert store.get_range("a", 10, 0) == b""
    assert store.get_range("empty", 0, 0) == b""
    for start, size in ((0, 11), (9, 2), (10, 1), (11, 0), (50, 5), (-1, 1), (0, -1), (-3, 0)):
        with pytest.raises(ValueError):
            store.get_range("a", start, size)
    with pytest.raises(ValueError):
        store.get_range("empty", 0, 1)


def test_put_if_absent(store: Store) -> None:
    info = store.put_if_absent("a/b", b"first")
    assert store.head("a/b") == info
    for data in (b"second", b"first"):  # the same bytes are refused too: they are not this call's
        with pytest.raises(PreconditionFailed, match="a/b"):
            store.put_if_absent("a/b", data)
    assert store.get("a/b") == b"first"
    assert store.head("a/b") == info
    store.delete("a/b")
    store.put_if_absent("a/b", b"third")
    assert store.get("a/b") == b"third"


def test_put_if_match(store: Store) -> None:
    with pytest.raises(PreconditionFailed):
        store.put_if_match("deep/a", b"x", '"0123"')
    assert list(store.list()) == []
    first = store.put("deep/a", b"1")
    second = store.put_if_match("deep/a", b"2", first.etag)
    assert second == store.head("deep/a")
    with pytest.raises(PreconditionFailed, match="deep/a"):
        store.put_if_match("deep/a", b"3", first.etag)
    assert store.get("deep/a") == b"2"
    store.delete("deep/a")
    with pytest.raises(PreconditionFailed):
        store.put_if_match("deep/a", b"3", second.etag)


def test_list_is_sorted_by_key_and_takes_any_prefix(store: Store) -> None:
    keys = ["real/1", "real/10", "real/2", "real-x", "real.json", "realistic/1", "B", "a/b/c/d", "a/b-c", "ä/1", "z"]
    for key in keys:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(keys)
    assert list(store.list()) == [store.head(key) for key in sorted(keys)]
    prefixes = [
        "",
        "r",
        "real",
        "real/",
        "real/1",
        "a/b",
        "a/b/",
        "a/b/c/d",
        "ä",
        "B",
        "b",
        "none/",
        "a/../",
        "/",
        "z/",
    ]
    for prefix in prefixes:
        wanted = sorted(key for key in keys if key.startswith(prefix))
        assert [info.key for info in store.list(prefix)] == wanted, prefix


def test_list_of_more_than_one_page(store: Store) -> None:
    keys = [f"shards/{i:05d}" for i in range(1005 if store.uri.startswith("s3://") else 50)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert [info.key for info in store.list("shards/")] == keys


def test_delete_leaves_the_neighbours(store: Store) -> None:
    store.put("a/b/1", b"1")
    store.put("a/b/2", b"2")
    store.delete("a/b/1")
    store.delete("a/b/1")
    store.delete("a/b")  # the folder of another object is not an object
    assert [info.key for info in store.list()] == ["a/b/2"]
    store.delete("a/b/2")
    assert list(store.list()) == []
    store.put("a", b"a folder no more")
    assert store.get("a") == b"a folder no more"


def test_of_concurrent_writers_one_wins(store: Store) -> None:
    def write(number: int) -> int | None:
        try:
            store.put_if_absent("claim", b"%d" % number * 1000)
        except PreconditionFailed:
            return None
        return number

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(write, range(8)) if number is not None]
        assert len(winners) == 1
        assert store.get("claim") == b"%d" % winners[0] * 1000
        store.delete("claim")


def test_no_count_is_lost_by_compare_and_swap(store: Store) -> None:
    store.put("count", b"0")

    def add(_: int) -> None:
        while True:
            info = store.head("count")
            assert info is not None
            value = int(store.get("count"))  # may be newer than the ETag, and then the put is refused
            try:
                store.put_if_match("count", b"%d" % (value + 1), info.etag)
                return
            except PreconditionFailed:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert store.get("count") == b"12"


def test_readers_never_see_a_part(store: Store) -> None:
    contents = [bytes([byte]) * 300_000 for byte in b"abcdef"]
    store.put("a", contents[0])
    with ThreadPoolExecutor(2) as pool:
        writes = pool.submit(lambda: [store.put("a", content) for content in contents * 3])
        seen = {store.get("a")}
        while not writes.done():
            seen.add(store.get("a"))
            seen.add(store.get_range("a", 0, 300_000))
        writes.result()
    assert seen <= set(contents)


_PROCESS = """
import sys
from adainf.storage import PreconditionFailed, open_store
store = open_store(sys.argv[1])
sys.stdin.readline()  # all start together
for i in range(int(sys.argv[3])):
    try:
        store.put_if_absent(f"claim-{i}", sys.argv[2].encode())
        print(i)
    except PreconditionFailed:
        pass
"""


def test_of_concurrent_processes_one_wins(store: Store) -> None:
    claims = 20
    command = [sys.executable, "-c", _PROCESS, store.uri]
    processes = [
        subprocess.Popen([*command, name, str(claims)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "abcd"
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = {name: process.communicate()[0].split() for name, process in zip("abcd", processes, strict=True)}
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(int(i) for mine in won.values() for i in mine) == list(range(claims))
    for name, mine in won.items():
        assert all(store.get(f"claim-{i}") == name.encode() for i in mine)


def test_stores_travel_to_other_processes(store: Store) -> None:
    store.put("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.uri == store.uri
    assert copy.get("a") == b"1"


KEYS = st.sampled_from(["a", "b/c", "b/d", "b-e", "ü"])
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "absent", "match", "stale", "delete", "get", "range", "list"]),
        KEYS,
        st.binary(max_size=8),
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_a_store_behaves_like_a_dict(new_store: NewStore, operations: list[tuple[str, str, bytes]]) -> None:
    store, model = new_store(), dict[str, bytes]()
    etags: dict[str, str] = {}
    for name, key, data in operations:
        if name == "put" or (name == "absent" and key not in model) or (name == "match" and key in model):
            put = {
                "put": lambda k, d: store.put(k, d),
                "absent": lambda k, d: store.put_if_absent(k, d),
                "match": lambda k, d: store.put_if_match(k, d, etags[k]),
            }[name]
            etags[key], model[key] = put(key, data).etag, data
        elif name == "absent":
            with pytest.raises(PreconditionFailed):
                store.put_if_absent(key, data)
        elif name in ("match", "stale"):
            with pytest.raises(PreconditionFailed):
                store.put_if_match(key, data, '"00000000000000000000000000000000"')
        elif name == "delete":
            store.delete(key)
            model.pop(key, None)
        elif name == "list":
            assert [(info.key, info.size_bytes, info.etag) for info in store.list(key[:1])] == [
                (k, len(model[k]), etags[k]) for k in sorted(model) if k.startswith(key[:1])
            ]
        elif key not in model:
            with pytest.raises(NotFound):
                store.get(key)
        elif name == "get":
            assert store.get(key) == model[key]
        else:
            middle = len(model[key]) // 2
            assert store.get_range(key, middle, len(model[key]) - middle) == model[key][middle:]
    assert {info.key: store.get(info.key) for info in store.list()} == model
