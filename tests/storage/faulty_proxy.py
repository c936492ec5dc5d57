"""A loopback HTTP proxy that does to S3 traffic what networks and other stores do. Standard library only."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

Fault = Literal["409", "501", "503", "cut", "stall", "lose", "corrupt", "anonymous", "unconditional"]
"""What may befall a request:

"409", "501", "503": answered so, not passed on; "cut": the body breaks off half way; "stall": it stops half way and the
connection stays open; "lose": passed on, but its answer is lost; "corrupt": the body's last byte is flipped;
"anonymous": passed on without its signature; "unconditional": without that and without If-Match and If-None-Match.
"""


@dataclass(frozen=True)
class Request:
    """One request, counted from 1 among those of its method."""

    method: str
    path: str
    number: int
    headers: dict[str, str]
    """Names in lower case."""


Plan = Callable[[Request], Fault | None]


def nth(method: str, *numbers: int, fault: Fault) -> Plan:
    """The plan that lets `fault` befall these requests of one method."""
    return lambda request: fault if request.method == method and request.number in numbers else None


class FaultyProxy:
    """``with FaultyProxy(port, plan) as proxy``: passes requests on to 127.0.0.1:port as `plan` wants."""

    def __init__(self, port: int, plan: Plan) -> None:
        self.plan = plan
        self.requests: list[tuple[Request, Fault | None]] = []
        self._target = port
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def faults(self) -> list[Fault]:
        """Those that were done so far."""
        return [fault for _, fault in self.requests if fault]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _note(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            number = 1 + sum(request.method == method for request, _ in self.requests)
            request = Request(method, path, number, {name.lower(): value for name, value in headers.items()})
            fault = self.plan(request)
            self.requests.append((request, fault))
            return fault

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                if proxy._closed.is_set():  # on a connection from before
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy._note(self.command, self.path, dict(self.headers))
                if fault in ("409", "501", "503"):
                    self.reply(int(fault), {"Content-Length": "0"}, b"", None)
                    return
                connection = http.client.HTTPConnection("127.0.0.1", proxy._target, timeout=30)
                try:
                    connection.request(self.command, self.path, body, self.passed_on(fault))
                    answer = connection.getresponse()
                    self.reply(answer.status, dict(answer.getheaders()), answer.read(), fault)
                finally:
                    connection.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

            def passed_on(self, fault: Fault | None) -> dict[str, str]:
                dropped = {"expect"}
                if fault in ("anonymous", "unconditional"):
                    dropped |= {"authorization"}
                if fault == "unconditional":
                    dropped |= {"if-match", "if-none-match"}
                return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

            def reply(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
                if fault == "lose":
                    self.close_connection = True
                    return
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                # A HEAD's length is the object's.
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length)
                self.end_headers()
                if fault == "corrupt":
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if fault in ("cut", "stall"):
                    body = body[: len(body) // 2]
                    self.close_connection = True
                self.wfile.write(body)
                self.wfile.flush()
                if fault == "stall":
                    proxy._closed.wait()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
