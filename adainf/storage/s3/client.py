"""What one process has of a store on S3: its connections, and the pace at which its threads read."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from boto3.session import Session
from botocore.config import Config
from botocore.loaders import Loader, create_loader

from adainf.errors import BadInput
from adainf.storage.s3.errors import host_of
from adainf.storage.s3.throttle import Pace


@dataclass(frozen=True, slots=True)
class Limits:
    """For how long, how often and how hard a store is asked."""

    attempts: int = 8
    """Of one request; a read begins to count again with each new byte."""
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 5.0
    """Until the answer to a read begins; other requests have `read_timeout_s`."""
    read_timeout_s: float = 10.0
    low_speed_timeout_s: float = 3.0
    """A body that has been slower than `low_speed_bytes_per_s` for so long is given up and asked for again."""
    low_speed_bytes_per_s: int = 10_000
    reads_at_once: int = 8
    """Of all threads of a process; see `Pace`, also for `retry_budget`."""
    retry_budget: int = 100


class S3Client:
    """Of one process, because a forked child must neither write into its parent's connections nor wait for its threads."""

    def __init__(self, uri: str, limits: Limits) -> None:
        self.pace = Pace(limits.reads_at_once, limits.retry_budget)
        self._uri = uri
        self._limits = limits
        self._lock = threading.Lock()  # a session is not safe among threads, the clients that it makes are
        self._session: Session | None = None
        self._reads: Any = None
        self._writes: Any = None

    @property
    def reads(self) -> Any:
        """The client for bodies. It asks once and does not wait long: `Download` decides what to do next."""
        if self._reads is None:
            with self._lock:
                self._reads = self._reads or self._connect(1, self._limits.first_byte_timeout_s)
        return self._reads

    @property
    def client(self) -> Any:
        """The client for everything else, which repeats what failed by itself."""
        if self._writes is None:
            with self._lock:
                self._writes = self._writes or self._connect(self._limits.attempts, self._limits.read_timeout_s)
        return self._writes

    @property
    def host(self) -> str:
        """Host and port, once there is a client; for messages."""
        client = self._reads or self._writes
        return host_of(client.meta.endpoint_url) if client else "S3"

    def _connect(self, attempts: int, read_timeout_s: float) -> Any:
        config = Config(
            signature_version="s3v4",
            connect_timeout=self._limits.connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=32,
            tcp_keepalive=True,
            # We give SHA-256 ourselves; botocore's own CRC32 trailers are unknown to many stores.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            self._session = self._session or _new_session()
            return self._session.client("s3", config=config)
        except ValueError:
            raise BadInput(f"{self._uri}: AWS_ENDPOINT_URL_S3 is no address; it looks like https://host:port") from None


def _new_session() -> Session:
    """Of its own: the default one is shared with whoever else uses boto3. The model of S3 is parsed once a process (50 ms)."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return Session(botocore_session=session)


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)
