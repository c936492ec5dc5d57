"""Reading an object from S3 to its end, whatever breaks on the way."""

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
    Broken,
    Damaged,
    brief,
    code_of,
    is_throttled,
    is_transient,
    note_retries,
    status_of,
)
from adainf.storage.s3.response import READ_BYTES, Body, read_headers, same_etag
from adainf.storage.s3.throttle import Pace, pause

Ask = Callable[..., Any]
"""get_object of one key: (Range, IfMatch, ChecksumMode) → the answer."""


class Replaced(AdaInfError):
    """The store holds another version than the one whose bytes have arrived."""


class Download:
    """The bytes of one version of an object from `start_bytes` on, all or `size_bytes` of them, in order.

    A body that breaks off, stalls or trickles is taken up at the next byte, of the version with the first answer's ETag
    (or with `etag`). A store that knows no ranges, or no conditions, is found out by what it answers. `verify`: compare
    the SHA-256 of the whole object, where the store has one, before the last byte is given.

    Its methods raise botocore's last error after `attempts` failures without a new byte; `AdaInfError` where the store
    keeps failing for all readers, or (`Replaced`) the object was replaced; `PreconditionFailed` where it is not the one
    with `etag`; `Damaged` for a wrong sum; `ValueError` past the end.
    """

    def __init__(
        self,
        ask: Ask,
        pace: Pace,
        limits: Limits,
        where: str,
        *,
        start_bytes: int = 0,
        size_bytes: int | None = None,
        etag: str | None = None,
        verify: bool = False,
    ) -> None:
        self._ask = ask
        self._pace = pace
        self._limits = limits
        self._where = where
        self._start = start_bytes
        self._size = size_bytes
        self._pinned = etag
        self._verify = verify
        self._body: Body | None = None
        self._rewind()

    def _rewind(self) -> None:
        self._at = self._start
        self._stop = 0  # known with the first answer, as is the total
        self._total: int | None = None
        self._etag = self._pinned
        self._skip = 0
        self._stuck = 0
        self._sha256 = hashlib.sha256()
        self._promised_sha256 = ""

    def begin(self) -> None:
        """Ask for the first byte, so that what is wrong shows now."""
        self._persist(lambda: None)

    def readinto(self, view: memoryview) -> int:
        """Fill `view`, or less where the object ends; how many bytes that were, 0 at the end. `begin` comes first."""
        start, stop = self._at, min(self._at + len(view), self._stop)
        if start < stop:
            self._persist(lambda: self._fill(view, start, stop))
        return stop - start

    def whole(self) -> bytes:
        """All bytes at once; as nobody has seen any, of a later version where the object is replaced meanwhile."""
        restarts = 0
        while True:
            try:
                return self.rest()
            except (Damaged, Replaced):
                restarts += 1
                if restarts >= self._limits.attempts:
                    raise
            self._rewind()
            pause(restarts)

    def rest(self) -> bytes:
        """What has not been read yet."""
        start = self._at
        memory: io.BytesIO | None = None

        def take() -> None:
            nonlocal memory
            if memory is None:
                memory = io.BytesIO(bytes(self._stop - start))  # filled in place, and given away without a copy
            with memory.getbuffer() as view:
                self._fill(view, start, self._stop)

        if self._total is None or start < self._stop:
            self._persist(take)
        return memory.getvalue() if memory else b""

    def close(self) -> None:
        """Stop, without reading what is left."""
        if self._drop():
            self._pace.succeeded()

    def _drop(self) -> bool:
        body, self._body = self._body, None
        if body is not None:
            body.close()
        return body is not None

    def _fill(self, view: memoryview, start: int, stop: int) -> None:
        """Read on until `stop` into `view`, whose first byte is the object's at `start`."""
        body = self._body
        assert body is not None
        while self._skip:
            self._skip -= len(body.read(self._skip))
        while self._at < stop:
            piece = body.read(stop - self._at)
            at = self._at - start
            view[at : at + len(piece)] = piece
            if self._promised_sha256:
                self._sha256.update(piece)
            self._at += len(piece)

    def _persist(self, take: Callable[[], None]) -> None:
        """`take` with a body at hand, again and again until it gets through."""
        while True:
            before = self._at
            try:
                with self._pace.turn() as began:
                    if self._body is None:
                        self._body = self._request()
                    take()
                break
            except (BotoCoreError, ClientError) as error:
                self._drop()
                if not is_transient(error):
                    raise
                self._note(error, began, self._at - before)
            pause(max(self._stuck, 1))
        if self._at == self._stop:
            self._end()

    def _note(self, error: BotoCoreError | ClientError, began: int, arrived_bytes: int) -> None:
        """Raise the error where it was one too many."""
        self._stuck = 0 if arrived_bytes else self._stuck + 1
        if is_throttled(error):
            self._pace.throttled(began)
        # What brought a piece was worth its request; a trickle was not.
        if arrived_bytes < READ_BYTES and not self._pace.failed():
            raise AdaInfError(
                f"{self._where}: the store keeps failing ({self._pace.tally}, this one by {brief(error)}); run again and it "
                "goes on from here"
            ) from None
        if self._stuck >= self._limits.attempts:
            raise note_retries(error, self._stuck - 1)

    def _end(self) -> None:
        self.close()
        if self._promised_sha256 and base64.b64encode(self._sha256.digest()).decode() != self._promised_sha256:
            raise Damaged(what="bytes whose SHA-256 is not the one that was put")

    def _request(self) -> Body:
        asked = {}
        if self._at or self._size is not None:
            asked["Range"] = f"bytes={self._at}-" + ("" if self._size is None else str(self._start + self._size - 1))
        elif self._verify:
            asked["ChecksumMode"] = "ENABLED"
        if self._etag is not None:
            asked["IfMatch"] = self._etag
        try:
            answer = self._ask(**asked)
        except ClientError as error:
            if status_of(error) == 416 and self._total is None:
                raise self._past_end() from None
            if status_of(error) == 416 or (self._etag is not None and code_of(error) in CONDITION_FAILED):
                raise self._replaced() from None
            raise
        body = Body(answer, self._limits.low_speed_timeout_s, self._limits.low_speed_bytes_per_s)
        try:
            self._compare(answer)
        except BaseException:
            body.close()
            raise
        return body

    def _compare(self, answer: Any) -> None:
        """Take what the first answer promises; hold the others to it."""
        said = read_headers(answer)
        if self._etag is not None and not same_etag(said.etag, self._etag):
            raise self._replaced()  # a store that ignores IfMatch
        if self._total is None:
            stop = said.total_bytes if self._size is None else self._start + self._size
            if stop > said.total_bytes:
                raise self._past_end()
        elif said.total_bytes != self._total:
            raise self._replaced()
        else:
            stop = self._stop
        if not said.whole and (said.start_bytes, said.stop_bytes) != (self._at, stop):
            raise Broken(what="another range than was asked for")
        self._etag, self._total, self._stop = said.etag, said.total_bytes, stop
        self._skip = self._at if said.whole else 0
        if self._verify and self._at == 0:
            sha256 = answer.get("ChecksumSHA256", "")
            self._promised_sha256 = "" if "-" in sha256 else sha256  # "…-3" is a sum over the sums of three parts

    def _replaced(self) -> Exception:
        if self._pinned is not None:
            return PreconditionFailed(f"{self._where} is not the object that was to be read: its ETag is not {self._pinned}")
        return Replaced(
            f"{self._where} was replaced while it was read, or the store's answers contradict each other; let nothing write "
            "to this run and run again"
        )

    def _past_end(self) -> ValueError:
        return ValueError(f"{self._where} ends before byte {self._start + (self._size or 0)}")


class Reader(io.RawIOBase):
    """A download as a file that is read once, from its first byte to its last."""

    def __init__(self, download: Download, explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._download = download
        self._explained = explained

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, or less where the object ends; how many bytes that were. After an error it is closed."""
        try:
            with self._explained():
                return self._download.readinto(memoryview(buffer).cast("B"))
        except BaseException:  # some bytes may be lost: the end must not seem to come next
            self.close()
            raise

    def readall(self) -> bytes:
        """All that is left."""
        try:
            with self._explained():
                return self._download.rest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, without reading what is left."""
        self._download.close()
        super().close()
