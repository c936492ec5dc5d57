"""The S3 clients of one process, and the flow control of its reads."""

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
from adainf.storage.s3.throttle import ConcurrencyLimiter, RetryBudget


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts, retries and concurrency of the requests to one store."""

    attempts: int = 8
    """Per request; a read resets the count with each new byte."""
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 5.0
    """Of reads, until the response begins; other requests use `read_timeout_s`."""
    read_timeout_s: float = 10.0
    low_speed_timeout_s: float = 3.0
    """A body slower than `low_speed_bytes_per_s` for this long is dropped and requested again."""
    low_speed_bytes_per_s: int = 10_000
    max_concurrent_reads: int = 8
    """Of all threads of a process; see `ConcurrencyLimiter`."""
    retry_budget: int = 100
    """Of all threads of a process; see `RetryBudget`."""


class S3Client:
    """Two boto3 clients of one process, created on first use: one for reads, one for all other requests.

    Each process has its own: a forked child must not write to its parent's connections, nor wait for its threads.
    """

    def __init__(self, uri: str, limits: Limits) -> None:
        self.limiter = ConcurrencyLimiter(limits.max_concurrent_reads)
        self.retry_budget = RetryBudget(limits.retry_budget)
        self._uri = uri
        self._limits = limits
        self._lock = threading.Lock()  # sessions are not thread-safe, the clients that they create are
        self._session: Session | None = None
        self._read_client: Any = None
        self._client: Any = None

    @property
    def read_client(self) -> Any:
        """The client for object bodies. It neither retries nor waits long: `Download` decides what to do next."""
        if self._read_client is None:
            with self._lock:
                self._read_client = self._read_client or self._connect(1, self._limits.first_byte_timeout_s)
        return self._read_client

    @property
    def client(self) -> Any:
        """The client for all other requests; it retries failures."""
        if self._client is None:
            with self._lock:
                self._client = self._client or self._connect(self._limits.attempts, self._limits.read_timeout_s)
        return self._client

    @property
    def host(self) -> str:
        """Host and port of the endpoint, for messages; "S3" before the first request."""
        client = self._read_client or self._client
        return host_of(client.meta.endpoint_url) if client else "S3"

    def _connect(self, attempts: int, read_timeout_s: float) -> Any:
        config = Config(
            signature_version="s3v4",
            connect_timeout=self._limits.connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=32,
            tcp_keepalive=True,
            # We send SHA-256 ourselves; many stores do not support botocore's CRC32 trailers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            self._session = self._session or _new_session()
            return self._session.client("s3", config=config)
        except ValueError:
            raise BadInput(f"{self._uri}: AWS_ENDPOINT_URL_S3 is not a URL; set it to https://host:port") from None


def _new_session() -> Session:
    """A private session: other code may use the default one. The service model of S3 is parsed once per process (50 ms)."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return Session(botocore_session=session)


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)
