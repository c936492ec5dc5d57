"""Downloads from S3 that survive interrupted, slow and inconsistent responses."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adainf.errors import AdaInfError
from adainf.storage.base import PreconditionFailed
from adainf.storage.s3.client import Limits
from adainf.storage.s3.errors import (
    CONDITION_FAILED,
    RESUME,
    BrokenResponse,
    ChecksumMismatch,
    brief,
    code_of,
    is_throttled,
    is_transient,
    note_retries,
    status_of,
)
from adainf.storage.s3.response import READ_BYTES, Body, read_headers, same_etag
from adainf.storage.s3.throttle import ConcurrencyLimiter, RetryBudget, backoff

GetObject = Callable[..., Any]
"""get_object of one key: (Range, IfMatch, ChecksumMode) → the response."""


class ObjectReplaced(AdaInfError):
    """The store holds another version than the one whose bytes have arrived."""


class Download:
    """The bytes of one version of an object, in order: all or `size_bytes` of them, from `start_bytes`.

    A body that breaks off, stalls or trickles is resumed at the next byte, of the version with the first response's ETag (or
    with `etag`). Stores that ignore ranges or conditions are detected by their responses. `verify`: compare the SHA-256 of the
    complete object, if the store has one, before the last byte is returned.

    Methods raise botocore's last error after `attempts` failures without a new byte, `AdaInfError` if the store keeps failing
    for all readers, `ObjectReplaced` if the object was replaced, `PreconditionFailed` if it does not have the ETag `etag`,
    `ChecksumMismatch` for a wrong SHA-256, and `ValueError` for a range past the end.
    """

    def __init__(
        self,
        get_object: GetObject,
        limiter: ConcurrencyLimiter,
        retry_budget: RetryBudget,
        limits: Limits,
        where: str,
        *,
        start_bytes: int = 0,
        size_bytes: int | None = None,
        etag: str | None = None,
        verify: bool = False,
    ) -> None:
        self._get_object = get_object
        self._limiter = limiter
        self._retry_budget = retry_budget
        self._limits = limits
        self._where = where
        self._start = start_bytes
        self._size = size_bytes
        self._required_etag = etag
        self._verify = verify
        self._body: Body | None = None
        self._rewind()

    def _rewind(self) -> None:
        self._at = self._start
        self._stop = 0  # known from the first response, as is the total
        self._total: int | None = None
        self._etag = self._required_etag
        self._skip = 0
        self._failures = 0  # since the last new byte
        self._sha256 = hashlib.sha256()
        self._expected_sha256 = ""

    def open(self) -> None:
        """Send the first request, so that its errors are raised now."""
        self._with_retries(lambda: None)

    def readinto(self, view: memoryview) -> int:
        """Fill `view`, or less at the end of the object; return the number of bytes, 0 at the end. Call `open` first."""
        start, stop = self._at, min(self._at + len(view), self._stop)
        if start < stop:
            self._with_retries(lambda: self._fill(view, start, stop))
        return stop - start

    def read_all(self) -> bytes:
        """All bytes. As the caller has seen none yet, an object that is replaced meanwhile is read again from its start."""
        restarts = 0
        while True:
            try:
                return self.read_rest()
            except (ChecksumMismatch, ObjectReplaced):
                restarts += 1
                if restarts >= self._limits.attempts:
                    raise
            self._rewind()
            backoff(restarts)

    def read_rest(self) -> bytes:
        """All bytes that have not been read yet."""
        start = self._at
        memory: io.BytesIO | None = None

        def fill() -> None:
            nonlocal memory
            if memory is None:
                memory = io.BytesIO(bytes(self._stop - start))  # filled in place and returned without a copy
            with memory.getbuffer() as view:
                self._fill(view, start, self._stop)

        if self._total is None or start < self._stop:
            self._with_retries(fill)
        return memory.getvalue() if memory else b""

    def close(self) -> None:
        """Stop, without reading the rest."""
        if self._drop_body():
            self._limiter.on_success()
            self._retry_budget.on_success()

    def _drop_body(self) -> bool:
        body, self._body = self._body, None
        if body is not None:
            body.close()
        return body is not None

    def _fill(self, view: memoryview, start: int, stop: int) -> None:
        """Read up to `stop` into `view`, whose first byte is the object's byte `start`."""
        body = self._body
        assert body is not None
        while self._skip:
            self._skip -= len(body.read(self._skip))
        while self._at < stop:
            piece = body.read(stop - self._at)
            at = self._at - start
            view[at : at + len(piece)] = piece
            if self._expected_sha256:
                self._sha256.update(piece)
            self._at += len(piece)

    def _with_retries(self, read: Callable[[], None]) -> None:
        """Call `read` with an open body until it succeeds; after a failure resume with a new request."""
        while True:
            before = self._at
            try:
                with self._limiter.slot() as epoch:
                    if self._body is None:
                        self._body = self._request()
                    read()
                break
            except (BotoCoreError, ClientError) as error:
                self._drop_body()
                if not is_transient(error):
                    raise
                self._on_failure(error, epoch, self._at - before)
            backoff(max(self._failures, 1))
        if self._at == self._stop:
            self._finish()

    def _on_failure(self, error: BotoCoreError | ClientError, epoch: int, arrived_bytes: int) -> None:
        """Record the failure; raise the error if it must not be retried."""
        self._failures = 0 if arrived_bytes else self._failures + 1
        if is_throttled(error):
            self._limiter.on_throttled(epoch)
        # A request that brought a full piece made progress; one that trickled did not.
        if arrived_bytes < READ_BYTES and not self._retry_budget.on_failure():
            raise AdaInfError(
                f"{self._where}: the store keeps failing ({self._retry_budget.summary}, the last with {brief(error)}); {RESUME}"
            ) from None
        if self._failures >= self._limits.attempts:
            raise note_retries(error, self._failures - 1)

    def _finish(self) -> None:
        self.close()
        if self._expected_sha256 and base64.b64encode(self._sha256.digest()).decode() != self._expected_sha256:
            raise ChecksumMismatch(what="bytes whose SHA-256 is not that of the upload")

    def _request(self) -> Body:
        parameters = {}
        if self._at or self._size is not None:
            parameters["Range"] = f"bytes={self._at}-" + ("" if self._size is None else str(self._start + self._size - 1))
        elif self._verify:
            parameters["ChecksumMode"] = "ENABLED"
        if self._etag is not None:
            parameters["IfMatch"] = self._etag
        try:
            response = self._get_object(**parameters)
        except ClientError as error:
            past_end = status_of(error) == 416 and "Range" in parameters
            if past_end and self._total is None:
                raise self._past_end() from None
            if past_end or (self._etag is not None and code_of(error) in CONDITION_FAILED):
                raise self._replaced() from None
            raise
        body = Body(response, self._limits.low_speed_timeout_s, self._limits.low_speed_bytes_per_s)
        try:
            self._check(response)
        except BaseException:
            body.close()
            raise
        return body

    def _check(self, response: Any) -> None:
        """Record version and size from the first response; require the same of all later ones."""
        headers = read_headers(response)
        if self._etag is not None and not same_etag(headers.etag, self._etag):
            raise self._replaced()  # a store that ignores IfMatch
        if self._total is None:
            stop = headers.total_bytes if self._size is None else self._start + self._size
            if stop > headers.total_bytes:
                raise self._past_end()
        elif headers.total_bytes != self._total:
            raise self._replaced()
        else:
            stop = self._stop
        if not headers.is_full and (headers.start_bytes, headers.stop_bytes) != (self._at, stop):
            raise BrokenResponse(what="another range than requested")
        self._etag, self._total, self._stop = headers.etag, headers.total_bytes, stop
        self._skip = self._at if headers.is_full else 0
        if self._verify and self._at == 0:
            sha256 = response.get("ChecksumSHA256", "")
            self._expected_sha256 = "" if "-" in sha256 else sha256  # "…-3" is a checksum of the checksums of three parts

    def _replaced(self) -> Exception:
        if self._required_etag is not None:
            return PreconditionFailed(f"{self._where} is not the requested version: its ETag is not {self._required_etag}")
        return ObjectReplaced(
            f"{self._where} was replaced during the read, or the store's responses contradict each other; stop all writers of "
            "this run and run the same command again"
        )

    def _past_end(self) -> ValueError:
        return ValueError(f"{self._where} ends before byte {self._start + (self._size or 0)}")


class Reader(io.RawIOBase):
    """A download as a file that is read once, from its first byte to its last."""

    def __init__(self, download: Download, translate_errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._download = download
        self._translate_errors = translate_errors

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, or less at the end of the object; return the number of bytes. An error closes the file."""
        try:
            with self._translate_errors():
                return self._download.readinto(memoryview(buffer).cast("B"))
        except BaseException:  # bytes may be missing: the next read must not look like the end of the file
            self.close()
            raise

    def readall(self) -> bytes:
        """All remaining bytes. An error closes the file."""
        try:
            with self._translate_errors():
                return self._download.read_rest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, without reading the rest."""
        self._download.close()
        super().close()
