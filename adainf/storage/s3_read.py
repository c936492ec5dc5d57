"""Reading an S3 body to its end. Botocore repeats requests that fail, but not a body that breaks off half way."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError

from adainf.storage.s3_errors import CONDITION_FAILED, code_of

READ_BYTES = 1 << 20

Fetch = Callable[[int, str | None], Any]
"""(bytes that have arrived, ETag of the object that they belong to or None) → the answer of get_object for the rest."""


def pause(attempt: int) -> None:
    """Sleep before the attempt after `attempt` failures: full jitter, so that many readers do not come back at once."""
    time.sleep(random.uniform(0, min(20.0, 0.1 * 2**attempt)))


def read_object(fetch: Fetch, attempts: int) -> bytes:
    """All bytes that the first answer of `fetch` promises, of one version of the object.

    A body that breaks off or stalls is taken up at the next byte; an object that was replaced meanwhile, or whose bytes
    fail their checksum, is read from the start. Raises the last error after `attempts` failures without a new byte, or
    `attempts` fresh starts.
    """
    arrived = _Arrived()
    problem: BotoCoreError | ClientError
    stuck = restarts = 0
    while True:
        before = arrived.size_bytes
        restart = False
        try:
            answer = fetch(before, arrived.etag)
        except ClientError as error:
            if arrived.etag is None or code_of(error) not in CONDITION_FAILED:
                raise
            problem, restart = error, True
        else:
            try:
                arrived.take(answer)
                return arrived.whole()
            except FlexibleChecksumError as error:
                problem, restart = error, True
            except (HTTPClientError, IncompleteReadError) as error:
                problem = error
            except (HTTPError, OSError) as error:  # what botocore lets through, such as TLS errors
                problem = HTTPClientError(error=error)
        stuck = 0 if arrived.size_bytes > before else stuck + 1
        if restart:
            arrived = _Arrived()
            restarts += 1
        if max(stuck, restarts) >= attempts:
            raise problem
        pause(max(stuck, restarts))


class _Arrived:
    """What has arrived of one version of one object."""

    def __init__(self) -> None:
        self.etag: str | None = None
        self.size_bytes = 0
        self._pieces: list[bytes] = []
        self._expected_bytes = 0
        self._sha256 = ""
        self._answers = 0

    def take(self, answer: Any) -> None:
        """Read the answer's body. Raises what botocore raises, and `IncompleteReadError` where it ends early."""
        self._answers += 1
        if self.etag is None:
            self.etag = answer["ETag"]
            self._expected_bytes = answer["ContentLength"]
            sha256 = answer.get("ChecksumSHA256", "")
            self._sha256 = "" if "-" in sha256 else sha256  # "…-3" is a sum over the sums of three parts
        elif "ContentRange" not in answer:  # the store knows no ranges and began again
            self._pieces, self.size_bytes = [], 0
        body = answer["Body"]
        try:
            while piece := body.read(READ_BYTES):  # the empty piece at the end makes botocore check the sum
                self._pieces.append(piece)
                self.size_bytes += len(piece)
        finally:
            body.close()
        if self.size_bytes != self._expected_bytes:
            raise IncompleteReadError(actual_bytes=self.size_bytes, expected_bytes=self._expected_bytes)

    def whole(self) -> bytes:
        """The bytes. Raises `FlexibleChecksumError` where they were pieced together and are not what was put."""
        data = b"".join(self._pieces)
        if self._answers > 1 and self._sha256:  # botocore checks bodies that arrive in one answer
            sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
            if sha256 != self._sha256:
                raise FlexibleChecksumError(error_msg="the pieces do not add up to the object")
        return data
