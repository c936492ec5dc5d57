"""The S3 clients of one process, their credentials, and the flow control of its reads.

botocore finds credentials, region, endpoint, proxies and CA bundles. It has no setting for two things: without credentials
requests are not signed, for public buckets; and AWS_REQUEST_PAYER=requester pays for the requests to other people's buckets.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.session import Session, get_session

from adainf.errors import AdaInfWarning, BadInput
from adainf.storage.s3.errors import brief, host_of, is_rejected
from adainf.storage.s3.throttle import ConcurrencyLimiter, RetryBudget, backoff

_Result = TypeVar("_Result")


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
        self.anonymous = False
        """Whether requests are not signed, as there are no credentials."""
        self._session: Session | None = None
        self._renewals = 0
        self._worked = self._gave_up = False
        self._read_client: Any = None
        self._client: Any = None

    def call(self, request: Callable[[Any], _Result], *, read: bool = False) -> _Result:
        """Call `request` with the client (`read`: the one for reads). Raises botocore's errors.

        While the store rejects the credentials, they are loaded again and the request is retried, `attempts` times: their
        renewal takes seconds. After that a rejection is raised at once, until a request succeeds.
        """
        failures = 0
        while True:
            renewals = self._renewals
            try:
                result = request(self.read_client if read else self.client)
            except (ClientError, BotoCoreError) as error:
                if not is_rejected(error, self._worked):
                    raise
                failures += 1
                self._gave_up = self._gave_up or failures >= self._limits.attempts
                if self._gave_up:
                    raise
                if failures == 1:
                    warnings.warn(
                        f"{self._uri}: the store rejects the credentials ({brief(error)}); they are loaded again, and the "
                        "request is retried for some seconds",
                        AdaInfWarning,
                        stacklevel=4,
                    )
            else:
                self._worked, self._gave_up = True, False
                return result
            backoff(failures)
            self._load_credentials_again(renewals)

    def _load_credentials_again(self, renewals: int) -> None:
        with self._lock:
            if self._renewals == renewals:  # else another thread has done it meanwhile
                self._renewals += 1
                self._session = self._read_client = self._client = None

    @property
    def sends_checksums(self) -> bool:
        """Whether uploads carry checksums: botocore's request_checksum_calculation (AWS_REQUEST_CHECKSUM_CALCULATION)."""
        return self._wants_checksums("request_checksum_calculation")

    @property
    def asks_checksums(self) -> bool:
        """Whether downloads ask for them: botocore's response_checksum_validation (AWS_RESPONSE_CHECKSUM_VALIDATION)."""
        return self._wants_checksums("response_checksum_validation")

    def _wants_checksums(self, setting: str) -> bool:
        return str((self._session or _new_session()).get_config_variable(setting)).lower() != "when_required"

    @property
    def read_client(self) -> Any:
        """The client for object bodies. It neither retries nor waits long: `Download` decides what to do next."""
        client = self._read_client
        if client is None:
            with self._lock:
                client = self._read_client = self._read_client or self._connect(1, self._limits.first_byte_timeout_s)
        return client

    @property
    def client(self) -> Any:
        """The client for all other requests; it retries failures."""
        client = self._client
        if client is None:
            with self._lock:
                client = self._client = self._client or self._connect(self._limits.attempts, self._limits.read_timeout_s)
        return client

    @property
    def host(self) -> str:
        """Host and port of the endpoint, for messages; "S3" before the first request."""
        client = self._read_client or self._client
        return host_of(client.meta.endpoint_url) if client else "S3"

    def _connect(self, attempts: int, read_timeout_s: float) -> Any:
        payer = os.environ.get("AWS_REQUEST_PAYER", "")
        if payer not in ("", "requester"):
            raise BadInput(f"{self._uri}: AWS_REQUEST_PAYER is {payer!r}; set it to requester, or unset it")
        if self._session is None:
            self._session = _new_session()
            self.anonymous = self._session.get_credentials() is None  # outside a cloud the search for a role takes seconds
        config = Config(
            signature_version=UNSIGNED if self.anonymous else "s3v4",
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
            client = self._session.create_client("s3", config=config)
        except ValueError:
            raise BadInput(f"{self._uri}: AWS_ENDPOINT_URL_S3 is not a URL; set it to https://host:port") from None
        client.meta.events.register("before-call.s3.HeadBucket", _follow_no_redirect)
        if payer:
            client.meta.events.register("before-call.s3", _pay_as_requester)
        return client


def _follow_no_redirect(context: Any, **_: object) -> None:
    """botocore asks for the region of a redirected HEAD of a bucket by the same HEAD, without end."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _pay_as_requester(params: Any, **_: object) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _new_session() -> Session:
    """A private session: other code may use the default one. The service model of S3 is parsed once per process (50 ms)."""
    session = get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)
