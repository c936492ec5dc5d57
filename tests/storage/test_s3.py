"""Runs on S3: user errors, broken connections, lost responses, stores with fewer features than AWS."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from adainf.errors import AdaInfError, BadInput
from adainf.storage import NotFound, PreconditionFailed, open_store
from adainf.storage.s3.client import Limits
from adainf.storage.s3.errors import explain
from adainf.storage.s3.store import S3Store
from tests.conftest import S3Server
from tests.storage.conftest import ATTEMPTS, Behind
from tests.storage.faulty_proxy import FaultyProxy, Plan, Request, nth

MIB = 1 << 20


def random_bytes(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.fixture
def store(s3_env: str) -> S3Store:
    return S3Store(s3_env)


def raw_keys(store: S3Store) -> list[str]:
    """All keys of the run as S3 has them, also those that `list` hides."""
    answer = store._client.list_objects_v2(Bucket=store._bucket, Prefix=store._prefix)
    return [item["Key"].removeprefix(store._prefix) for item in answer.get("Contents", [])]


# URIs


def test_uris(s3_env: str) -> None:
    S3Store(s3_env).put("a", b"1")
    bucket, prefix = s3_env.removeprefix("s3://").split("/")
    for uri in (f"{s3_env}/", f"s3://{bucket}//{prefix}//"):
        assert S3Store(uri).get("a") == b"1"
        assert S3Store(uri).uri == uri
    for uri in (f"s3://{bucket}", f"s3://{bucket}/"):
        assert S3Store(uri).get(f"{prefix}/a") == b"1"
        assert [info.key for info in S3Store(uri).list(f"{prefix}/")] == [f"{prefix}/a"]


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "s3:///a", "s3://bucket/a/../b"])
def test_invalid_uris(uri: str) -> None:
    with pytest.raises(BadInput, match="s3://bucket/prefix"):
        open_store(uri)


def test_credentials_in_the_uri_are_refused_and_not_quoted() -> None:
    with pytest.raises(BadInput) as caught:
        open_store("s3://AKIA123:hush@bucket/run")
    assert "AKIA123" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_runs_in_one_bucket_do_not_see_each_other(s3_env: str) -> None:
    S3Store(f"{s3_env}/run").put("a", b"1")
    S3Store(f"{s3_env}/run-2").put("a", b"2")
    assert [info.key for info in S3Store(f"{s3_env}/run").list()] == ["a"]
    assert S3Store(f"{s3_env}/run").get("a") == b"1"


# Errors that the user must fix

CALLS: dict[str, Callable[[S3Store], object]] = {
    "open": lambda store: store.open("a"),
    "get": lambda store: store.get("a"),
    "get_range": lambda store: store.get_range("a", 0, 1),
    "get_range of nothing": lambda store: store.get_range("a", 0, 0),
    "put": lambda store: store.put("a", b"1"),
    "put_if_absent": lambda store: store.put_if_absent("a", b"1"),
    "put_if_match": lambda store: store.put_if_match("a", b"1", '"00"'),
    "head": lambda store: store.head("a"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a"),
}


def bad_input(call: Callable[[S3Store], object], store: S3Store, exit_code: int = 64) -> str:
    """The sentence of the `BadInput` that `call` raises, or the error with that exit code; holds no credential."""
    with pytest.raises(AdaInfError) as caught:
        call(store)
    assert caught.value.exit_code == exit_code
    assert caught.value.__suppress_context__, "the traceback would print botocore's error, with addresses"
    message = str(caught.value)
    assert store.uri in message
    assert "\n" not in message
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ.get(name, "no such thing") not in message
    assert "Signature=" not in message
    return message


def bad_inputs(store: S3Store, exit_code: int = 64) -> dict[str, str]:
    """The sentences of all methods, where all must fail."""
    return {name: bad_input(call, store, exit_code) for name, call in CALLS.items()}


def test_a_bucket_that_does_not_exist(s3_env: str) -> None:
    for name, message in bad_inputs(S3Store("s3://no-such-bucket/run")).items():
        assert "the bucket no-such-bucket does not exist; create it" in message, name


def test_a_wrong_secret(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20))
    for name, message in bad_inputs(S3Store(s3_env)).items():
        assert "check" in message
        assert "credentials" in message
        assert "SignatureDoesNotMatch" in message, name


def test_an_unknown_key_id(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", secrets.token_hex(10))
    for name, message in bad_inputs(S3Store(s3_env, Limits(attempts=ATTEMPTS))).items():
        assert "credentials" in message, name


@pytest.mark.parametrize("left", [(), ("AWS_ACCESS_KEY_ID",)], ids=["none", "half"])
def test_no_credentials(s3_env: str, left: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}.difference(left):
        monkeypatch.delenv(name)
    for name, message in bad_inputs(S3Store(s3_env)).items():
        assert "no complete credentials" in message, name


def test_a_profile_that_does_not_exist(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "AWS_PROFILE" in bad_input(CALLS["get"], S3Store(s3_env))


@pytest.mark.parametrize("bucket", ["x", "No_Bucket..", "a b", "b" * 300])
def test_an_invalid_bucket_name(s3_env: str, bucket: str) -> None:
    for name, message in bad_inputs(S3Store(f"s3://{bucket}/run")).items():
        # For some requests SeaweedFS reports only that it does not exist.
        assert f"bucket {bucket} does not exist" in message or "not a valid bucket name" in message, name


def test_an_unreachable_endpoint_may_be_retried(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:hush@127.0.0.1:{port}")
        for name, message in bad_inputs(S3Store(s3_env, Limits(attempts=2)), exit_code=1).items():
            assert f"127.0.0.1:{port} cannot be reached; check AWS_ENDPOINT_URL_S3" in message, name
            assert "hush" not in message


@pytest.mark.parametrize(("reason", "exit_code"), [(socket.EAI_NONAME, 64), (socket.EAI_AGAIN, 1)])
def test_a_host_without_an_address(s3_env: str, monkeypatch: pytest.MonkeyPatch, reason: int, exit_code: int) -> None:
    def getaddrinfo(*_: object) -> None:
        raise socket.gaierror(reason, "no address")

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.invalid:1")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    message = bad_input(CALLS["get"], S3Store(s3_env, Limits(attempts=2)), exit_code)
    assert "s3.invalid:1 cannot be reached; check AWS_ENDPOINT_URL_S3" in message


def test_an_endpoint_that_is_not_a_url(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost")
    assert "AWS_ENDPOINT_URL_S3" in bad_input(CALLS["get"], S3Store(s3_env))


def test_an_endpoint_without_tls(s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{s3_server.port}")
    assert "TLS" in bad_input(CALLS["get"], S3Store(s3_env, Limits(attempts=2)))


def test_a_store_that_becomes_unreachable_may_be_retried(behind: Behind) -> None:
    with behind(lambda _: None) as (store, _):
        store.put("a", b"1")
    with pytest.raises(AdaInfError, match="cannot be reached") as caught:
        store.get("a")
    assert caught.value.exit_code not in (64, 65)


def test_errors_of_the_store_are_not_user_errors(behind: Behind) -> None:
    with behind(lambda _: "503") as (store, proxy):
        with pytest.raises(AdaInfError, match=f"responded 503 after {ATTEMPTS - 1} retries") as caught:
            store.get("a")
        assert len(proxy.requests) == ATTEMPTS
    assert caught.value.exit_code not in (64, 65)


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("ExpiredToken", 400, "get new credentials"),
        ("RequestTimeTooSkewed", 403, "set the clock"),
        ("AuthorizationHeaderMalformed", 400, "AWS_DEFAULT_REGION"),
        ("XMinioStorageFull", 507, "no space left"),
        ("AccessDenied", 403, "may list the bucket"),
    ],
)
def test_responses_of_other_stores_name_the_fix(code: str, status: int, says: str) -> None:
    """SeaweedFS does not send these; the server's own message is never quoted."""
    answer: Any = {"Error": {"Code": code, "Message": "hush"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = explain(ClientError(answer, "PutObject"), "s3://bucket/run/a", "bucket", "host:1", worked=True)
    assert isinstance(error, BadInput)
    assert says in str(error)
    assert "s3://bucket/run/a" in str(error)
    assert "hush" not in str(error)


# Multipart


def multipart_uploads(store: S3Store) -> list[Any]:
    answer = store._client.list_multipart_uploads(Bucket=store._bucket, Prefix=store._prefix)
    return list(answer.get("Uploads", []))


def test_objects_over_64_mib_go_in_parts(store: S3Store) -> None:
    data = random_bytes(64 * MIB + 1)
    info = store.put_if_absent("big", data)
    assert info.etag.endswith('-3"')
    assert store.head("big") == info
    assert hashlib.sha256(store.get("big")).digest() == hashlib.sha256(data).digest()
    assert store.get_range("big", 32 * MIB - 5, 10) == data[32 * MIB - 5 : 32 * MIB + 5]
    with pytest.raises(PreconditionFailed):
        store.put_if_absent("big", data)
    assert multipart_uploads(store) == []


def test_parts_are_completed_under_the_condition(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before the upload only saves traffic: here it passes, as if the rival wrote during the upload."""
    monkeypatch.setattr("adainf.storage.s3.upload.MULTIPART_OVER_BYTES", 6 * MIB)
    monkeypatch.setattr("adainf.storage.s3.upload.PART_BYTES", 5 * MIB)
    rival = store.put("big", b"rival")
    monkeypatch.setattr(S3Store, "_check_condition", lambda *_, **__: None)
    for put in (
        lambda data: store.put_if_absent("big", data),
        lambda data: store.put_if_match("big", data, '"0123"'),
    ):
        with pytest.raises(PreconditionFailed):
            put(random_bytes(7 * MIB))
        assert store.get("big") == b"rival"
        assert multipart_uploads(store) == [], "incomplete uploads must be aborted"
    info = store.put_if_match("big", random_bytes(7 * MIB), rival.etag)
    assert info.etag.endswith('-2"')
    assert store.get("big") == random_bytes(7 * MIB)


def test_a_lost_completion_counts(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adainf.storage.s3.upload.MULTIPART_OVER_BYTES", 6 * MIB)
    monkeypatch.setattr("adainf.storage.s3.upload.PART_BYTES", 5 * MIB)
    with behind(nth("POST", 2, fault="lose")) as (store, proxy):
        store.put_if_absent("big", random_bytes(7 * MIB))
        assert proxy.faults() == ["lose"]
        assert store.get("big") == random_bytes(7 * MIB)
        assert multipart_uploads(store) == []


# Broken connections


def test_every_third_request_fails(behind: Behind) -> None:
    counted: list[Request] = []

    def plan(request: Request) -> Any:
        counted.append(request)
        return "503" if len(counted) % 3 == 0 else None

    with behind(plan) as (store, proxy):
        for i in range(6):
            store.put_if_absent(f"a/{i}", b"%d" % i)
        assert [store.get(info.key) for info in store.list("a/")] == [b"%d" % i for i in range(6)]
        assert proxy.faults().count("503") >= 5


# Lost responses


def puts_of(name: str, fault: Any, *numbers: int) -> Plan:
    """`fault` for the first (or `numbers`) conditional puts of one key, not those of the probe."""
    seen: list[Request] = []

    def plan(request: Request) -> Any:
        if request.method != "PUT" or not request.path.endswith(f"/{name}"):
            return None
        seen.append(request)
        return fault if len(seen) in (numbers or (1,)) else None

    return plan


def test_a_conditional_put_whose_response_is_lost_has_succeeded(behind: Behind) -> None:
    with behind(puts_of("claim", "lose", 1, 3)) as (store, proxy):
        info = store.put_if_absent("claim", b"mine")
        assert proxy.faults() == ["lose"]
        assert store.head("claim") == info
        assert store.put_if_match("claim", b"mine too", info.etag) == store.head("claim")
        assert proxy.faults() == ["lose", "lose"]
        assert store.get("claim") == b"mine too"


def test_a_rival_is_not_mistaken_for_a_lost_response(behind: Behind) -> None:
    with behind(puts_of("claim", "503", 2, 4)) as (store, proxy):
        info = store.put_if_absent("claim", b"rival")
        with pytest.raises(PreconditionFailed):
            store.put_if_absent("claim", b"mine!")
        with pytest.raises(PreconditionFailed):
            store.put_if_match("claim", b"mine!", '"0123"')
        assert proxy.faults() == ["503", "503"]
        assert store.head("claim") == info


def test_a_put_without_a_retry_never_claims_equal_bytes(behind: Behind) -> None:
    with behind(lambda _: None) as (store, _):
        store.put_if_absent("claim", b"same")
        with pytest.raises(PreconditionFailed):
            store.put_if_absent("claim", b"same")


def test_conflicts_are_retried(behind: Behind) -> None:
    """AWS responds 409 to a conditional put during another unfinished one."""
    with behind(puts_of("claim", "409")) as (store, proxy):
        store.put_if_absent("claim", b"mine")
        assert proxy.faults() == ["409"]
        assert store.get("claim") == b"mine"


# Conditions


def test_the_probe_runs_once_and_leaves_nothing(behind: Behind) -> None:
    with behind(lambda _: None) as (store, proxy):
        store.put("a", b"1")
        assert len(proxy.requests) == 1, "a store that is only read or put to needs no probe"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_if_absent("b", b"1")
            probes = [request for request, _ in proxy.requests if ".adainf-probe-" in request.path]
            assert [request.method for request in probes] == ["PUT", "PUT", "PUT", "DELETE"]
            before = len(proxy.requests)
            store.put_if_absent("c", b"1")
        assert len(proxy.requests) == before + 1
        assert raw_keys(store) == ["a", "b", "c"]


def test_probes_of_killed_processes_are_hidden(store: S3Store) -> None:
    store._client.put_object(Bucket=store._bucket, Key=f"{store._prefix}.adainf-probe-0", Body=b"")
    store._client.put_object(Bucket=store._bucket, Key=f"{store._prefix}folder/", Body=b"")  # as web consoles do
    store.put("a", b"1")
    assert [info.key for info in store.list()] == ["a"]


@pytest.mark.parametrize("answer", ["unconditional", "501"])
def test_a_store_without_conditional_writes(
    s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """Such stores ignore the header, or respond 501; the open bucket accepts the proxy's changes to signed requests."""

    def plan(request: Request) -> Any:
        conditional = {"if-match", "if-none-match"} & request.headers.keys()
        return answer if conditional else "anonymous"

    with FaultyProxy(s3_server.port, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = S3Store(f"s3://{s3_server.open_bucket}/{secrets.token_hex(8)}", Limits(attempts=ATTEMPTS))
        with pytest.warns(RuntimeWarning, match="ignores conditional writes") as caught:
            info = store.put_if_absent("a", b"1")
        assert len(caught) == 1
        assert caught[0].filename == __file__
        probed = len(proxy.faults())
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once is enough
            with pytest.raises(PreconditionFailed):
                store.put_if_absent("a", b"2")
            with pytest.raises(PreconditionFailed):
                store.put_if_match("a", b"2", '"0123"')
            with pytest.raises(PreconditionFailed):
                store.put_if_match("none", b"2", info.etag)
            assert store.get("a") == b"1"
            store.put_if_match("a", b"2", info.etag)
        assert store.get("a") == b"2"
        assert answer not in proxy.faults()[probed:], "no more conditional requests after the probe"
        assert raw_keys(store) == ["a"]


# Clients


def test_the_bucket_is_in_the_path_of_a_custom_endpoint(behind: Behind, s3_server: S3Server) -> None:
    with behind(lambda _: None) as (store, proxy):
        store.put("a b", b"")
        request, _ = proxy.requests[0]
        assert request.path == f"/{s3_server.bucket}/{store._prefix}a%20b"
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        assert "x-amz-checksum-sha256" in request.headers


def test_a_forked_child_makes_its_own_connections(store: S3Store) -> None:
    store.put("a", b"1")
    parents = store._client
    child = os.fork()
    if child == 0:
        try:
            assert store._client is not parents
            assert store.get("a") == b"1"
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store._client is parents


def test_a_get_of_a_missing_object_names_it(store: S3Store) -> None:
    with pytest.raises(NotFound, match=f"{store.uri}/real/0.tar does not exist"):
        store.get("real/0.tar")


def test_keys_of_the_disk_and_the_bucket_agree(store: S3Store, tmp_path: Path) -> None:
    """A run can be copied from one kind of store to the other."""
    local = open_store(str(tmp_path))
    for key in ("real/0.tar", "ünï/1", "a b"):
        store.put(key, key.encode())
        local.put(key, store.get(key))
    assert [(i.key, i.size_bytes) for i in store.list()] == [(i.key, i.size_bytes) for i in local.list()]
