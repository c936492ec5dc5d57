"""Reads from S3 under every fault of a network or a store: all bytes correct, in bounded time."""

from __future__ import annotations

import gc
import io
import itertools
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from adainf.errors import AdaInfError, Stopped
from adainf.storage import PreconditionFailed
from adainf.storage.s3.client import Limits
from adainf.storage.s3.download import Download
from adainf.storage.s3.errors import BrokenResponse
from adainf.storage.s3.response import Body
from adainf.storage.s3.store import S3Store
from adainf.storage.s3.throttle import ConcurrencyLimiter, RetryBudget
from tests.conftest import S3Server
from tests.storage.conftest import ATTEMPTS, Behind, Rclone
from tests.storage.faulty_proxy import Fault, Plan, Request

MIB = 1 << 20
QUICK = Limits(attempts=ATTEMPTS, first_byte_timeout_s=0.5, low_speed_timeout_s=0.5)


def random_bytes(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def gets(proxy: Any) -> list[Request]:
    return [request for request, _ in proxy.requests if request.method == "GET"]


def every_fourth(fault: Fault) -> Plan:
    """Of each object's GETs, and of all first ones: no thread meets it twice in a row, whatever their order."""
    clocks: dict[str, Iterator[int]] = {}

    def plan(request: Request) -> Fault | None:
        clock = clocks.setdefault(request.path, itertools.count(len(clocks) + 1))
        return fault if request.method == "GET" and next(clock) % 4 == 2 else None

    return plan


def always(fault: Fault) -> Plan:
    return lambda request: fault if request.method == "GET" else None


def in_order(*faults: Fault | None) -> Plan:
    """One for each GET, then none."""
    return lambda r: faults[r.number - 1] if r.method == "GET" and r.number <= len(faults) else None


# A quarter of all reads fail

FAULTS: list[Fault] = ["429", "500", "503", "cut", "stall", "trickle", "silence", "lose", "corrupt", "long", "short", "etag"]
OBJECTS = {f"real/{i}.tar": random_bytes(MIB + 1000 * i + i) for i in range(10)}


@pytest.mark.parametrize("fault", FAULTS)
def test_ten_objects_of_the_main_server(behind: Behind, s3_env: str, fault: Fault) -> None:
    """With the default limits."""
    writer = S3Store(s3_env)
    for key, data in OBJECTS.items():
        writer.put(key, data)
    with behind(every_fourth(fault), Limits()) as (store, proxy), ThreadPoolExecutor(4) as pool:
        began_s = time.monotonic()
        arrived = list(pool.map(store.get, OBJECTS))
        assert time.monotonic() - began_s < 20
        assert arrived == list(OBJECTS.values())
        assert proxy.faults().count(fault) >= 3


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("corrupt", "long")])
def test_ten_objects_of_a_server_without_checksums(behind: Behind, rclone: Rclone, fault: Fault) -> None:
    writer = S3Store(f"s3://{rclone.bucket}/run")
    for key, data in OBJECTS.items():
        writer.put(key, data)
    with behind(every_fourth(fault), QUICK, uri=writer.uri, port=rclone.port) as (store, proxy):
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(store.get, OBJECTS)) == list(OBJECTS.values())
        assert proxy.faults().count(fault) >= 3


def test_one_file_under_all_faults(behind: Behind, s3_env: str) -> None:
    data = random_bytes(20 * MIB + 7)
    S3Store(s3_env).put("a", data)
    faults: list[Fault] = ["503", "cut", "500", "stall", "elsewhere", "trickle", "silence", "429", "cut", "lose", "cut"]
    with behind(in_order(*faults), QUICK, break_after_bytes=MIB + 5) as (store, proxy):
        with store.open("a") as file:
            pieces = list(iter(lambda: file.read(10_240), b""))
        assert b"".join(pieces) == data
        assert proxy.faults() == faults


@pytest.mark.parametrize("fault", [*(fault for fault in FAULTS if fault != "corrupt"), "elsewhere"])
def test_ranges(behind: Behind, s3_env: str, fault: Fault) -> None:
    """A range has no checksum (readers of samples check their own), but its length and offset are known."""
    data = random_bytes(MIB)
    S3Store(s3_env).put("a", data)
    with behind(in_order(fault, fault), QUICK) as (store, proxy):
        assert store.get_range("a", 1000, 70_001) == data[1000:71_001]
        assert proxy.faults()[0] == fault


# Resuming


@pytest.mark.parametrize("fault", ["cut", "stall", "trickle"])
def test_an_interrupted_body_is_resumed_at_the_next_byte(behind: Behind, s3_env: str, fault: Fault) -> None:
    data = random_bytes(6 * MIB + 12346)
    etag = S3Store(s3_env).put("a", data).etag
    limits = Limits(low_speed_timeout_s=0.5)  # a stalled body must time out sooner than a first byte
    with behind(in_order(fault, fault), limits, break_after_bytes=MIB + 321) as (store, proxy):
        began_s = time.monotonic()
        assert store.get("a") == data
        assert time.monotonic() - began_s < 4
        assert [get.headers.get("if-match") for get in gets(proxy)] == [None, etag, etag]
        starts = [int(get.headers["range"].removeprefix("bytes=").removesuffix("-")) for get in gets(proxy)[1:]]
        trickled = 10 if fault == "trickle" else 0  # 10 bytes a second for up to a second
        assert MIB + 321 <= starts[0] <= MIB + 321 + trickled
        assert MIB + 321 <= starts[1] - starts[0] <= MIB + 321 + trickled


def test_a_range_is_resumed_within_the_range(behind: Behind, s3_env: str) -> None:
    data = random_bytes(4 * MIB)
    S3Store(s3_env).put("a", data)
    with behind(in_order("cut")) as (store, proxy):
        assert store.get_range("a", 1000, 2 * MIB) == data[1000 : 1000 + 2 * MIB]
        assert gets(proxy)[-1].headers["range"] == f"bytes={1000 + MIB}-{1000 + 2 * MIB - 1}"


def test_a_range_past_the_end_of_an_answer_cut_to_fit(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", random_bytes(1000))
    with behind(in_order("503", "cut")) as (store, _), pytest.raises(ValueError, match="ends before byte 1001"):
        store.get_range("a", 500, 501)


def test_a_body_that_never_comes_is_given_up(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", b"0")
    with behind(always("cut")) as (store, proxy):
        with pytest.raises(AdaInfError, match=r"kept failing \(a body that ended early\)") as caught:
            store.get("a")
        assert caught.value.exit_code not in (64, 65)
        assert proxy.faults() == ["cut"] * ATTEMPTS


def test_a_slow_reader_is_not_a_slow_store(behind: Behind, s3_env: str) -> None:
    data = random_bytes(12 * MIB)
    S3Store(s3_env).put("a", data)
    with behind(lambda _: None, QUICK) as (store, proxy), store.open("a") as file:
        head = file.read(MIB)
        time.sleep(1.2)
        middle = file.read(MIB)
        time.sleep(1.2)
        assert head + middle + file.read() == data
        assert len(gets(proxy)) == 1


@pytest.mark.parametrize(("piece_bytes", "slow"), [(1500, False), (150, True)])
def test_the_low_speed_limit(piece_bytes: int, slow: bool) -> None:
    class Drip(io.BytesIO):
        def read1(self, _: int | None = -1) -> bytes:
            time.sleep(0.05)
            return super().read1(piece_bytes)

        def set_socket_timeout(self, timeout_s: float) -> None:
            assert timeout_s == 0.3

    body = Body({"Body": Drip(bytes(20 * piece_bytes)), "ContentLength": 20 * piece_bytes}, 0.3, 10_000)
    with pytest.raises(BrokenResponse, match=r"slower than 10000 bytes/s for 0.3 s") if slow else nullcontext():
        for _ in range(20):
            body.read(MIB)


def test_a_server_that_is_killed_and_restarted(s3_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(60 * MIB)
    server = Rclone(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    server.start()
    again = threading.Timer(1.0, server.start)
    try:
        store = S3Store(f"s3://{server.bucket}")
        store.put("a", data)
        with store.open("a") as file:
            head = file.read(MIB)
            server.kill()
            again.start()
            assert head + file.read() == data
    finally:
        again.join()
        server.kill()


# Corruption, and other versions


def test_corruption_in_transit_is_detected_and_retried(behind: Behind, s3_env: str) -> None:
    data = random_bytes(3 * MIB)
    S3Store(s3_env).put("a", data)
    for faults in (["corrupt"], ["cut", "corrupt"]):  # in one response, and resumed
        with behind(in_order(*faults)) as (store, proxy):  # type: ignore[arg-type]
            assert store.get("a") == data
            assert proxy.faults() == faults


def test_permanent_corruption_is_an_error(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", b"0123456789")
    with behind(always("corrupt")) as (store, proxy):
        with pytest.raises(AdaInfError, match="SHA-256 is not that of the upload"):
            store.get("a")
        assert proxy.faults() == ["corrupt"] * ATTEMPTS
        assert store.get("a", verify=False) == b"0123456788", "callers that check the bytes need no second check"


def test_a_corrupt_file_raises_before_its_end(behind: Behind, s3_env: str) -> None:
    data = random_bytes(3 * MIB)
    S3Store(s3_env).put("a", data)
    with behind(in_order("corrupt")) as (store, _), store.open("a") as file:
        assert file.read(2 * MIB) == data[: 2 * MIB]
        with pytest.raises(AdaInfError, match="SHA-256 is not that of the upload"):
            file.read(MIB)
        with pytest.raises(ValueError, match="closed"):  # rather than b"", which would be the end
            file.read(1)


@pytest.mark.parametrize("ignored", [False, True], ids=["If-Match", "If-Match ignored"])
def test_an_object_that_is_replaced_while_it_is_read(behind: Behind, s3_server: S3Server, open_uri: str, ignored: bool) -> None:
    old, new = random_bytes(6 * MIB), random_bytes(6 * MIB)[::-1]
    writer = S3Store(open_uri)
    first = writer.put("a", old)  # connects before the proxy exists, and so bypasses it

    def plan(request: Request) -> Any:
        if request.method != "GET":
            return None
        if request.number == 1:
            return "cut"
        if request.number == 2:  # the reader comes back for the second half of `old`
            writer.put("a", new)
        return "unconditional" if ignored and request.number == 2 else None

    with behind(plan, uri=open_uri) as (store, proxy):
        assert store.get("a") == new, "no byte was returned yet, so the new version is correct"
        assert proxy.faults() == ["cut", "unconditional"] if ignored else ["cut"]
    first = writer.put("a", old)
    with (
        behind(plan, uri=open_uri) as (store, _),
        store.open("a") as file,
        pytest.raises(AdaInfError, match="was replaced during"),
    ):
        file.read()
    first = writer.put("a", old)
    with behind(plan, uri=open_uri) as (store, _), pytest.raises(PreconditionFailed, match="its ETag is not"):
        store.get("a", etag=first.etag)


def test_responses_that_contradict_each_other(behind: Behind, s3_env: str) -> None:
    data = random_bytes(3 * MIB)
    S3Store(s3_env).put("a", data)
    with behind(in_order("cut", "etag")) as (store, proxy):
        assert store.get("a") == data
        assert [get.headers.get("range") for get in gets(proxy)] == [None, f"bytes={3 * MIB // 2}-", None]
    with (
        behind(in_order("cut", "etag")) as (store, _),
        store.open("a") as file,
        pytest.raises(AdaInfError, match="contradict each other"),
    ):
        file.read()
    with behind(in_order("etag")) as (store, _), pytest.raises(PreconditionFailed):
        store.get("a", etag=store.head("a").etag)


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"1"'},
        {"ContentLength": 3},
        {"ETag": '"1"', "ContentLength": 3, "ContentRange": "bytes 0-9/10"},
        {"ETag": '"1"', "ContentLength": 3, "ContentRange": "bytes 0-2/*"},
        {"ETag": '"1"', "ContentLength": 3, "ContentRange": "bytes 7-9/10"},
    ],
    ids=lambda headers: " ".join(map(str, headers.values())),
)
def test_a_response_with_invalid_headers_is_refused(headers: dict[str, Any]) -> None:
    requests: list[dict[str, str]] = []

    class Fake(io.BytesIO):
        def set_socket_timeout(self, _: float) -> None:
            pass

    def get_object(**parameters: str) -> Any:
        requests.append(parameters)
        return {"Body": Fake(b"012"), **headers}

    limiter, budget, limits = ConcurrencyLimiter(1), RetryBudget(10), Limits(attempts=3)
    download = Download(get_object, limiter, budget, limits, "s3://bucket/a", verify=True)
    with pytest.raises(BrokenResponse, match=r"a response without|a response whose length|another range"):
        download.read_all()
    assert requests == [{"ChecksumMode": "ENABLED"}] * 3


def test_a_store_without_ranges(behind: Behind, open_uri: str) -> None:
    data = random_bytes(3 * MIB)
    S3Store(open_uri).put("a", data)
    with behind(in_order("cut", "unranged"), uri=open_uri) as (store, proxy):
        assert store.get("a") == data
        assert proxy.faults() == ["cut", "unranged"]
    with behind(in_order("cut", "unranged"), uri=open_uri) as (store, _), store.open("a") as file:
        assert file.read() == data
    with behind(always("unranged"), uri=open_uri) as (store, _):
        assert store.get_range("a", 2 * MIB, 5) == data[2 * MIB : 2 * MIB + 5]
        with pytest.raises(ValueError, match="ends before"):
            store.get_range("a", 2 * MIB, 2 * MIB)


# Many readers


def test_files_that_are_closed_early(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", random_bytes(30 * MIB))
    with behind(lambda _: None, Limits(max_concurrent_reads=1)) as (store, proxy):
        files = [store.open("a", verify=False) for _ in range(5)]  # more than the limit, in one thread
        assert {file.read(1) for file in files} == {random_bytes(30 * MIB)[:1]}
        for file in files:
            file.close()
        assert len(gets(proxy)) == 5
        assert store.get_range("a", 0, 1) == random_bytes(30 * MIB)[:1]


def test_throttling_lowers_the_concurrency_and_success_restores_it(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", b"0123456789")
    throttled = threading.Event()

    def plan(request: Request) -> Any:
        return "503" if request.method == "GET" and throttled.is_set() else None

    limits = Limits(attempts=20, max_concurrent_reads=4, retry_budget=1000)
    with behind(plan, limits, delay_s=0.15) as (store, proxy), ThreadPoolExecutor(12) as pool:

        def most_at_once(reads: int) -> int:
            before = len(proxy.at_once)
            assert set(pool.map(store.get, ["a"] * reads)) == {b"0123456789"}
            return max(proxy.at_once[before:])

        assert most_at_once(24) == 4
        throttled.set()
        busy = [pool.submit(store.get, "a") for _ in range(12)]
        while proxy.faults().count("503") < 10:  # 4 at once, 2, then one by one
            time.sleep(0.01)
        before = len(proxy.at_once)
        while len(proxy.at_once) < before + 5:
            time.sleep(0.01)
        assert max(proxy.at_once[before:]) == 1
        throttled.clear()
        assert {future.result() for future in busy} == {b"0123456789"}
        assert most_at_once(40) == 4


def test_all_threads_share_one_retry_budget(behind: Behind, s3_env: str) -> None:
    S3Store(s3_env).put("a", b"0123456789")
    broken = threading.Event()
    broken.set()

    def plan(request: Request) -> Any:
        return "500" if request.method == "GET" and broken.is_set() else None

    with behind(plan, Limits(retry_budget=30)) as (store, proxy), ThreadPoolExecutor(8) as pool:

        def read(_: int) -> str:
            with pytest.raises(AdaInfError) as caught:
                store.get("a")
            assert caught.value.exit_code not in (64, 65)
            return str(caught.value)

        began_s = time.monotonic()
        messages = list(pool.map(read, range(100)))  # without the budget: 800 requests and minutes of backoff
        assert time.monotonic() - began_s < 20
        assert len(proxy.requests) <= 30 + 100
        assert re.search(r"the store keeps failing \((1\d\d) of \1 reads failed, the last with 500\)", messages[-1])
        assert "run the same command again to resume" in messages[-1]
        broken.clear()
        assert store.get("a") == b"0123456789"


# Stop requests


@pytest.mark.parametrize("fault", ["stall", "silence", "503"])
def test_a_stop_passes_through(behind: Behind, s3_env: str, fault: Fault) -> None:
    S3Store(s3_env).put("a", random_bytes(MIB))

    def stop(*_: object) -> None:
        raise Stopped("stopped")

    before = signal.signal(signal.SIGALRM, stop)
    gc.collect()
    gc.disable()  # Python drops exceptions that a handler raises during weak reference callbacks
    try:
        with behind(always(fault), Limits()) as (store, proxy):
            for read in (lambda: store.get("a"), lambda: store.open("a").read()):
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                began_s = time.monotonic()
                with pytest.raises(Stopped):
                    read()
                assert time.monotonic() - began_s < 1
            proxy.plan = lambda _: None
            assert store.get("a") == random_bytes(MIB), "no slot is lost"
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def test_reads_create_only_one_client(s3_env: str) -> None:
    S3Store(s3_env).put("a", b"1")
    store = S3Store(s3_env)
    assert store.get("a") == b"1"
    assert store._s3._client is None
