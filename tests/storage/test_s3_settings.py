"""Credentials that are renewed, refusals without a reason, stores with fewer features, and the settings of boto3."""

from __future__ import annotations

import os
import secrets
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from adainf.errors import AdaInfError, BadInput
from adainf.storage import PreconditionFailed
from adainf.storage.s3.client import Limits
from adainf.storage.s3.store import S3Store
from adainf.storage.s3.upload import MULTIPART_OVER_BYTES
from tests.conftest import S3Server
from tests.storage.conftest import ATTEMPTS, Behind
from tests.storage.faulty_proxy import Fault, FaultyProxy, Request
from tests.storage.forward_proxy import ForwardProxy
from tests.storage.test_s3 import CALLS, bad_input, raw_keys

# Refusals, and credentials that are renewed

REFUSALS: dict[Fault, str] = {
    "ExpiredToken": "the session token is invalid or expired (ExpiredToken); get new credentials",
    "RequestTimeTooSkewed": "this machine's clock is too far from that of",
    "PermanentRedirect": "is in another region (PermanentRedirect)",
    "AccessDenied": "denied access (AccessDenied)",
    "moved": "redirects to https://s3.example; set AWS_ENDPOINT_URL_S3",
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_every_call_names_the_reason_of_a_refusal(behind: Behind, fault: Fault) -> None:
    """A response to HEAD has no body: a GET of one byte has."""
    for name, call in CALLS.items():
        with behind(lambda _: fault, Limits(attempts=2)) as (store, proxy):
            assert REFUSALS[fault] in bad_input(call, store), name
            asked = [request for request, _ in proxy.requests if request.headers.get("range") == "bytes=0-0"]
            expected = ["GET"] if name in ("head", "get_range", "get_range of nothing") else []
            assert [request.method for request in asked[:1]] == expected, name


def test_an_object_that_may_be_got_and_not_headed(behind: Behind) -> None:
    with behind(lambda request: "AccessDenied" if request.method == "HEAD" else None) as (store, _):
        for key, data in (("a", b"12345"), ("empty", b"")):
            put = store.put(key, data)
            assert store.head(key) == put
        assert store.head("none") is None


@pytest.mark.parametrize("data", [None, b"", b"12345"])
def test_credentials_that_are_renewed_during_a_head(behind: Behind, data: bytes | None) -> None:
    """The refusal of the HEAD names no reason, and the GET for the reason succeeds."""
    with behind(lambda _: None) as (store, proxy):
        put = None if data is None else store.put("a", data)
        remaining: list[Fault] = ["ExpiredToken"]
        proxy.plan = lambda _: remaining.pop() if remaining else None
        assert store.head("a") == put
        assert not remaining


@pytest.mark.parametrize("answer", ["405", "409"])
def test_a_store_that_refuses_conditions_in_another_way(behind: Behind, answer: Fault) -> None:
    """With a status that other stores use for conflicts or methods, for each conditional put."""
    conditional = {"if-match", "if-none-match"}
    with behind(lambda request: answer if conditional & request.headers.keys() else None) as (store, _):
        with pytest.warns(RuntimeWarning, match="ignores conditional writes"):
            store.put_if_absent("a", b"1")
        with pytest.raises(PreconditionFailed):
            store.put_if_absent("a", b"2")
        assert store.get("a") == b"1"


@pytest.mark.parametrize("fault", ["ExpiredToken", "InvalidAccessKeyId"])
def test_rejected_credentials_are_retried_until_they_are_renewed(
    behind: Behind, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adainf.storage.s3.client.backoff", lambda failures: None)  # seconds for each call
    for name, call in CALLS.items():
        remaining = [fault] * (ATTEMPTS - 1)
        with behind(lambda _: None) as (store, proxy):
            store.put("a", b"1")
            proxy.plan = lambda _, faults=remaining: faults.pop() if faults else None
            refused = suppress(PreconditionFailed) if name.startswith("put_if") else nullcontext()
            with pytest.warns(RuntimeWarning, match=rf"rejects the credentials \(\d+ {fault}\)") as caught, refused:
                call(store)
            assert (remaining, len(caught)) == ([], 1), name


def test_renewed_credentials_are_read_from_their_file(
    s3_server: S3Server, s3_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another program writes them to the profile; the store's own check rejects the old ones."""

    def write(key: str, secret: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    write("expired", "expired")

    def plan(request: Request) -> Fault | None:
        if request.number == 2:
            write(s3_server.access_key, s3_server.secret_key)
        return None

    with FaultyProxy(s3_server.port, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        S3Store(s3_env).put("a", b"1")
        assert len(proxy.requests) == 3


def test_credentials_that_stay_rejected_are_retried_once_and_not_for_each_call(behind: Behind) -> None:
    with behind(lambda _: "ExpiredToken") as (store, proxy):
        for expected in (ATTEMPTS, ATTEMPTS + 1):
            assert "get new credentials" in bad_input(CALLS["get"], store)
            assert len(proxy.requests) == expected


# Stores with fewer features


def refusing(header: str, answer: Fault) -> Any:
    return lambda request: answer if any(name.startswith(header) for name in request.headers) else "anonymous"


@pytest.mark.parametrize("answer", ["400", "501"])
@pytest.mark.parametrize("conditions", [True, False])
def test_a_store_that_refuses_checksums(
    s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch, answer: Fault, conditions: bool
) -> None:
    def plan(request: Request) -> Fault | None:
        refused = ("x-amz-checksum", "x-amz-sdk-checksum") if conditions else ("x-amz-checksum", "x-amz-sdk-checksum", "if-")
        return answer if any(name.startswith(refused) for name in request.headers) else "anonymous"

    with FaultyProxy(s3_server.port, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = S3Store(f"s3://{s3_server.open_bucket}/{secrets.token_hex(8)}", Limits(attempts=ATTEMPTS))
        with pytest.warns(RuntimeWarning) as caught:
            store.put_if_absent("a", b"1")
        expected = ["refuses x-amz-checksum headers"] + ["ignores conditional writes"] * (not conditions)
        assert len(caught) == len(expected)
        assert all(text in str(warning.message) for text, warning in zip(expected, caught, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once is enough
            with pytest.raises(PreconditionFailed):
                store.put_if_absent("a", b"2")
            assert store.get("a") == b"1"
            probed = len(proxy.requests)
            assert store.get("a") == b"1"
            big = bytes(MULTIPART_OVER_BYTES + 1)
            store.put("big", big)
            assert store.get("big", verify=False) == big
        assert answer not in [fault for _, fault in proxy.requests[probed:]], "no more headers that it refuses"
        assert raw_keys(store) == ["a", "big"]


def test_boto3s_setting_of_checksums_is_followed(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    with behind(lambda _: None) as (store, proxy):
        store.put("a", b"1")
        store.put_if_absent("b", b"1")
        assert store.get("a") == b"1"
        assert not any("checksum" in name for request, _ in proxy.requests for name in request.headers)


def test_a_refusal_that_is_not_about_headers_is_the_stores(behind: Behind) -> None:
    with behind(lambda _: "400") as (store, _), pytest.raises(AdaInfError, match="responded 400"):
        store.put("a", b"1")


@pytest.mark.parametrize("name", ["put", "put_if_absent", "head", "list", "get"])
def test_a_web_page_is_not_a_store(behind: Behind, name: str) -> None:
    """As of a console or a login page, which answer 200: nothing was stored, and nothing shows that the run is empty."""
    with behind(lambda _: "page", Limits(attempts=2)) as (store, _):
        sentence = bad_input(CALLS[name], store, exit_code=1 if name == "get" else 64)
        assert name == "get" or "does not respond as S3 does" in sentence
        assert name == "get" or "set AWS_ENDPOINT_URL_S3 to the address of the store" in sentence


# Settings of boto3


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_credentials")
def test_a_public_bucket_is_read_without_credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyProxy(s3_server.port, lambda _: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = S3Store(f"s3://{s3_server.open_bucket}/{secrets.token_hex(8)}")
        store.put("a", b"1")
        assert store.get("a") == b"1"
        assert store.head("a")
        assert [info.key for info in store.list()] == ["a"]
        assert not any("authorization" in request.headers for request, _ in proxy.requests)
        private = S3Store(f"s3://{s3_server.bucket}/run")
        sentence = bad_input(CALLS["get"], private)
        assert "no complete credentials were found, and 127.0.0.1" in sentence
        assert "denied anonymous access (AccessDenied); set AWS_ACCESS_KEY_ID" in sentence


def test_requester_pays(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    with behind(lambda _: None) as (store, proxy):
        for name in ("put", "put_if_absent", "get", "head", "list", "delete"):
            try:
                CALLS[name](store)
            except PreconditionFailed:
                assert name == "put_if_absent"
        assert {request.headers.get("x-amz-request-payer") for request, _ in proxy.requests} == {"requester"}
        assert all("x-amz-request-payer" in request.headers["authorization"] for request, _ in proxy.requests), "signed"
    monkeypatch.setenv("AWS_REQUEST_PAYER", "true")
    with (
        behind(lambda _: None) as (store, _),
        pytest.raises(BadInput, match=r"is .true.; set it to requester"),
    ):
        store.get("a")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
def tls_store(s3_server: S3Server, s3_env: str, authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A store behind https with the certificate of `authority`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    with FaultyProxy(s3_server.port, lambda _: "anonymous", tls=context) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield S3Store(f"s3://{s3_server.open_bucket}/{secrets.token_hex(8)}", Limits(attempts=2))


def test_a_custom_certificate_authority(tls_store: S3Store, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = bad_input(CALLS["get"], tls_store)
    assert "no trusted TLS connection" in sentence
    assert "AWS_CA_BUNDLE" in sentence
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.parent / "missing.pem"))
    assert "AWS_CA_BUNDLE" in bad_input(CALLS["put"], S3Store(tls_store.uri, Limits(attempts=2)))
    monkeypatch.setenv("AWS_CA_BUNDLE", f"{authority}.crt")
    trusting = S3Store(tls_store.uri)
    trusting.put_if_absent("a", b"1")
    assert trusting.get("a") == b"1"


@pytest.mark.parametrize("user", [None, "me:hush"])
def test_a_proxy_for_http_and_its_exceptions(behind: Behind, monkeypatch: pytest.MonkeyPatch, user: str | None) -> None:
    with ForwardProxy(user) as forward, behind(lambda _: None) as (store, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://{f'{user}@' if user else ''}{forward.address}")
        store.put_if_absent("a", b"1")
        assert store.get("a") == b"1"
        sent = len(forward.requests)
        assert sent > 2
        if user:
            monkeypatch.setenv("HTTP_PROXY", f"http://me:wrong@{forward.address}")
            sentence = bad_input(CALLS["get"], S3Store(store.uri, Limits(attempts=2)))
            assert "the proxy refused access (407)" in sentence
            assert "wrong" not in sentence
        sent = len(forward.requests)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        S3Store(store.uri).put("a", b"2")
        assert len(forward.requests) == sent


def test_a_proxy_for_https(tls_store: S3Store, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", f"{authority}.crt")
    with ForwardProxy("me:hush") as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hush@{forward.address}")
        tls_store.put("a", b"1")
        assert tls_store.get("a") == b"1"
        assert {request.split(" ")[0] for request in forward.requests} == {"CONNECT"}
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong@{forward.address}")
        refused = S3Store(tls_store.uri, Limits(attempts=2))
        with pytest.raises(AdaInfError, match="the proxy in HTTPS_PROXY or HTTP_PROXY cannot be reached or refuses") as caught:
            refused.get("a")
        assert "wrong" not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{forward.address}")  # it has ended
    with pytest.raises(AdaInfError, match="HTTPS_PROXY or HTTP_PROXY"):
        S3Store(tls_store.uri, Limits(attempts=2)).get("a")
    assert not isinstance(caught.value, BadInput), "a proxy may come back"
    assert os.environ["HTTPS_PROXY"]
