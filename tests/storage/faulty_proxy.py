"""A loopback HTTP proxy that injects the faults of networks and other stores into S3 traffic. Standard library only."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

Fault = Literal[
    "400", "405", "409", "429", "500", "501", "503",
    "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "PermanentRedirect", "RequestTimeTooSkewed", "moved", "page",
    "cut", "stall", "trickle", "silence", "lose", "corrupt", "long", "short", "etag", "elsewhere",
    "anonymous", "unconditional", "unranged",
]  # fmt: skip
"""Faults of a request:

"409" and other numbers: the response has this status, the request is not forwarded; "AccessDenied" and other codes: so, and
the body holds the code, except for HEAD; "page": 200 and a web page; "moved": to https;
"cut": the body breaks off half way (or after `break_after_bytes`); "stall": it stops there, and the connection stays open;
"trickle": from there it arrives byte by byte, 10 a second; "silence": no response, not even headers; "lose": forwarded, but the
response is lost; "corrupt": a bit of the body's last byte is flipped; "long", "short": it is 100 bytes longer or shorter than
the headers state; "etag": another ETag; "elsewhere": the headers state a range one byte later;
"anonymous": forwarded without its signature; "unconditional": also without If-Match and If-None-Match;
"unranged": also without Range (and signature).
"""

_STATUSES = {name: int(name) for name in ("400", "405", "409", "429", "500", "501", "503")}
_STATUSES |= {"AccessDenied": 403, "ExpiredToken": 400, "InvalidAccessKeyId": 403}
_STATUSES |= {"PermanentRedirect": 301, "RequestTimeTooSkewed": 403}
_DROPPED = {
    "anonymous": {"authorization"},
    "unconditional": {"authorization", "if-match", "if-none-match"},
    "unranged": {"authorization", "range"},
}


@dataclass(frozen=True, eq=False)
class Request:
    """One request, counted from 1 among those of its method."""

    method: str
    path: str
    number: int
    headers: dict[str, str]
    """Names in lower case."""


Plan = Callable[[Request], Fault | None]


def nth(method: str, *numbers: int, fault: Fault) -> Plan:
    """The plan that injects `fault` into these requests of one method."""
    return lambda request: fault if request.method == method and request.number in numbers else None


class FaultyProxy:
    """``with FaultyProxy(port, plan) as proxy``: forwards requests to 127.0.0.1:port with the faults of `plan`.

    `delay_s`: latency of every response. `at`: its own port; 0 for a free one. `tls`: it serves https.
    """

    def __init__(
        self,
        port: int,
        plan: Plan,
        *,
        break_after_bytes: int | None = None,
        delay_s: float = 0.0,
        at: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.plan = plan
        self.break_after_bytes = break_after_bytes
        self.delay_s = delay_s
        self.at_once: list[int] = []
        """For each request the number in flight at its arrival, itself included."""
        self._running: set[Request] = set()
        self.requests: list[tuple[Request, Fault | None]] = []
        self._target = port
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", at), self._handler())
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def faults(self) -> list[Fault]:
        """The faults injected so far."""
        return [fault for _, fault in self.requests if fault]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _note(self, method: str, path: str, headers: dict[str, str]) -> tuple[Request, Fault | None]:
        with self._lock:
            number = 1 + sum(request.method == method for request, _ in self.requests)
            request = Request(method, path, number, {name.lower(): value for name, value in headers.items()})
            fault = self.plan(request)
            self.requests.append((request, fault))
            self._running.add(request)
            self.at_once.append(len(self._running))
            return request, fault

    def _done(self, request: Request) -> None:
        with self._lock:
            self._running.discard(request)

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                if proxy._closed.is_set():  # on a connection from before
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.request_noted, fault = proxy._note(self.command, self.path, dict(self.headers))
                proxy._closed.wait(proxy.delay_s)
                try:
                    self.forward(body, fault)
                except ConnectionError:
                    self.close_connection = True  # the client gave up, or the server is down
                finally:
                    proxy._done(self.request_noted)

            def forward(self, body: bytes, fault: Fault | None) -> None:
                if fault == "page":
                    self.reply(200, {"Content-Type": "text/html"}, b"" if self.command == "HEAD" else b"<html/>", None)
                    return
                if fault == "moved":
                    self.reply(301, {"Content-Type": "text/html", "Location": "https://s3.example/a?Signature=hush"}, b"", None)
                    return
                if fault in _STATUSES:
                    named = not fault.isdecimal() and self.command != "HEAD"
                    body = f"<Error><Code>{fault}</Code><Message>hush</Message></Error>".encode() if named else b""
                    self.reply(_STATUSES[fault], {"Content-Type": "application/xml"}, body, None)
                    return
                connection = http.client.HTTPConnection("127.0.0.1", proxy._target, timeout=30)
                try:
                    connection.request(self.command, self.path, body, self.forwarded_headers(fault))
                    response = connection.getresponse()
                    self.reply(response.status, dict(response.getheaders()), response.read(), fault)
                finally:
                    connection.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

            def forwarded_headers(self, fault: Fault | None) -> dict[str, str]:
                dropped = {"expect"} | _DROPPED.get(fault or "", set())
                return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

            def reply(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
                if fault == "silence":
                    proxy._closed.wait()
                if fault in ("lose", "silence"):
                    self.close_connection = True
                    return
                if fault == "etag":
                    headers["ETag"] = '"0123"'
                if fault == "elsewhere" and (found := re.search(r"(\d+)-(\d+)/", headers.get("Content-Range", ""))):
                    span = f"{int(found[1]) + 1}-{int(found[2]) + 1}/"
                    headers["Content-Range"] = headers["Content-Range"].replace(found[0], span)
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                # A HEAD's length is the object's.
                length = int(headers.get("Content-Length", "0")) if self.command == "HEAD" else len(body)
                length += {"long": -100, "short": 100}.get(fault or "", 0)
                self.send_header("Content-Length", str(length))
                proxy._done(self.request_noted)  # before the client can send the next one
                self.end_headers()
                if fault == "corrupt":
                    body = body[:-1] + bytes([body[-1] ^ 1])
                rest = b""
                if fault in ("cut", "stall", "trickle"):
                    half = len(body) // 2 if proxy.break_after_bytes is None else proxy.break_after_bytes
                    body, rest = body[:half], body[half:]
                self.close_connection = self.close_connection or fault in ("cut", "stall", "trickle", "short")
                self.wfile.write(body)
                self.wfile.flush()
                if fault == "stall":
                    proxy._closed.wait()
                for i in range(len(rest) if fault == "trickle" else 0):
                    if proxy._closed.wait(0.1):
                        return
                    self.wfile.write(rest[i : i + 1])
                    self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
