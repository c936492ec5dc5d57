"""One answer of get_object: what it says of the object, and its body, which is watched for standing still."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from typing import Any, NamedTuple

from urllib3.exceptions import HTTPError

from adainf.storage.s3.errors import Broken

READ_BYTES = 1 << 19
"""What fits the cache of a processor, as it is copied once more."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Said(NamedTuple):
    """What an answer says: its bytes are those from `start_bytes` to before `stop_bytes` of an object of `total_bytes`."""

    etag: str
    start_bytes: int
    stop_bytes: int
    total_bytes: int
    whole: bool
    """The answer to a request without a range, or of a store that ignores it."""


def read_headers(answer: Any) -> Said:
    """Raises `Broken` where they contradict themselves or promise nothing."""
    etag, length_bytes, content_range = answer.get("ETag"), answer.get("ContentLength"), answer.get("ContentRange")
    if not etag or length_bytes is None:
        raise Broken(what="an answer without ETag or length")
    if content_range is None:
        return Said(etag, 0, length_bytes, length_bytes, whole=True)
    found = _RANGE.fullmatch(content_range)
    if found is None or int(found[2]) + 1 - int(found[1]) != length_bytes:
        raise Broken(what="an answer whose length is not that of its range")
    return Said(etag, int(found[1]), int(found[2]) + 1, int(found[3]), whole=False)


def same_etag(one: str, other: str) -> bool:
    """Some stores list ETags without the quotes that they answer with."""
    return one.strip('"') == other.strip('"')


class Body:
    """The answer's bytes, in pieces of up to half a MiB, as they come.

    A body that brings fewer than `low_speed_bytes_per_s` while it is waited for during `low_speed_timeout_s` is given up.
    A socket's own timeout cannot tell that, as each byte that trickles in sets it back, nor can a read of a full MiB,
    which returns only at its end. Time that the reader spends between two reads does not count.
    """

    def __init__(self, answer: Any, low_speed_timeout_s: float, low_speed_bytes_per_s: int) -> None:
        self._timeout_s = low_speed_timeout_s
        self._bytes_per_s = low_speed_bytes_per_s
        self._slow_s = 0.0  # waited for these bytes, which are not yet as many as that time should bring
        self._slow_bytes = 0
        self._open = ExitStack()
        self._raw = self._open.enter_context(answer["Body"])  # urllib3's: botocore's has no read1
        if answer.get("ContentLength"):  # else there is no socket any more
            answer["Body"].set_socket_timeout(low_speed_timeout_s)

    def read(self, limit_bytes: int) -> bytes:
        """What is there, 1 to `limit_bytes` bytes. Raises `Broken` where nothing more comes, or too slowly."""
        if self._slow_s >= self._timeout_s:
            raise Broken(what=f"a body slower than {self._bytes_per_s} bytes/s for {self._timeout_s:g} s")
        began_s = time.monotonic()
        try:
            piece: bytes = self._raw.read1(min(limit_bytes, READ_BYTES))
        except (HTTPError, OSError) as error:
            raise Broken(what=f"a body that broke off, {type(error).__name__}") from None
        if not piece:
            raise Broken(what="a body that ended early")
        self._slow_s += time.monotonic() - began_s
        self._slow_bytes += len(piece)
        if self._slow_bytes >= self._timeout_s * self._bytes_per_s:
            self._slow_s, self._slow_bytes = 0.0, 0
        return piece

    def close(self) -> None:
        """Give the connection back, or drop it where the body has not been read to its end."""
        self._open.close()
