"""A response of get_object: its headers, and its body with a low-speed timeout."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from typing import Any, NamedTuple

from urllib3.exceptions import HTTPError

from adainf.storage.s3.errors import BrokenResponse, NotS3

READ_BYTES = 1 << 19
"""Fits a processor's cache: the bytes are copied once more."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Headers(NamedTuple):
    """The body holds the bytes from `start_bytes` to before `stop_bytes` of an object of `total_bytes`."""

    etag: str
    start_bytes: int
    stop_bytes: int
    total_bytes: int
    is_full: bool
    """The body is the complete object: the request had no range, or the store ignores ranges."""


def read_headers(response: Any) -> Headers:
    """Raises `BrokenResponse` for headers that are missing or contradict each other."""
    etag, length_bytes, content_range = response.get("ETag"), response.get("ContentLength"), response.get("ContentRange")
    if not etag or length_bytes is None:
        raise BrokenResponse(what="a response without ETag or length")
    if content_range is None:
        return Headers(etag, 0, length_bytes, length_bytes, is_full=True)
    found = _RANGE.fullmatch(content_range)
    if found is None or int(found[2]) + 1 - int(found[1]) != length_bytes:
        raise BrokenResponse(what="a response whose length does not match its range")
    return Headers(etag, int(found[1]), int(found[2]) + 1, int(found[3]), is_full=False)


def etag_of(response: Any) -> str:
    """The ETag of a successful HEAD or upload. Raises `NotS3` without one: nothing may be taken for stored."""
    if not response.get("ETag"):
        raise NotS3(what="a response without ETag")
    return str(response["ETag"])


def same_etag(one: str, other: str) -> bool:
    """Compare without quotes: some stores list ETags without the quotes that their responses have."""
    return one.strip('"') == other.strip('"')


class Body:
    """The bytes of a response, in pieces of up to half a MiB, as they arrive.

    A body that delivers fewer than `low_speed_bytes_per_s` over `low_speed_timeout_s` of waiting is given up. A socket timeout
    cannot detect that, as every byte that trickles in resets it. Nor can a read of a full MiB, which returns only at its end.
    The time that the caller spends between two reads does not count.
    """

    def __init__(self, response: Any, low_speed_timeout_s: float, low_speed_bytes_per_s: int) -> None:
        self._timeout_s = low_speed_timeout_s
        self._bytes_per_s = low_speed_bytes_per_s
        self._slow_s = 0.0  # time waited for `_slow_bytes`, which are still fewer than the low speed would give
        self._slow_bytes = 0
        self._open = ExitStack()
        self._raw = self._open.enter_context(response["Body"])  # urllib3's: botocore's has no read1
        if response.get("ContentLength"):  # an empty body has released its socket
            response["Body"].set_socket_timeout(low_speed_timeout_s)

    def read(self, limit_bytes: int) -> bytes:
        """1 to `limit_bytes` bytes, as available. Raises `BrokenResponse` if the body ends early, stalls or is too slow."""
        if self._slow_s >= self._timeout_s:
            raise BrokenResponse(what=f"a body slower than {self._bytes_per_s} bytes/s for {self._timeout_s:g} s")
        started_s = time.monotonic()
        try:
            piece: bytes = self._raw.read1(min(limit_bytes, READ_BYTES))
        except (HTTPError, OSError) as error:
            raise BrokenResponse(what=f"a body that broke off, {type(error).__name__}") from None
        if not piece:
            raise BrokenResponse(what="a body that ended early")
        self._slow_s += time.monotonic() - started_s
        self._slow_bytes += len(piece)
        if self._slow_bytes >= self._timeout_s * self._bytes_per_s:
            self._slow_s, self._slow_bytes = 0.0, 0
        return piece

    def close(self) -> None:
        """Return the connection to the pool, or drop it if the body was not read to its end."""
        self._open.close()
