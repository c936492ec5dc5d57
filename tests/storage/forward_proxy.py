"""A loopback forward proxy, as HTTP_PROXY and HTTPS_PROXY name one: absolute URIs and CONNECT. Standard library only."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class ForwardProxy:
    """``with ForwardProxy() as proxy``; `user` is ``name:password`` where it asks for them."""

    def __init__(self, user: str | None = None) -> None:
        self.requests: list[str] = []
        """Method and target of each request."""
        self._expected = f"Basic {base64.b64encode(user.encode()).decode()}" if user else None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def refused(self) -> bool:
                proxy.requests.append(f"{self.command} {self.path}")
                if proxy._expected in (None, self.headers.get("Proxy-Authorization")):
                    return False
                self.send_response(407)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.refused():
                    return
                target = urlsplit(self.path)
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                dropped = ("proxy-authorization", "expect")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
                connection.request(self.command, f"{target.path}?{target.query}".rstrip("?"), body, headers)
                response = connection.getresponse()
                content = response.read()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = response.headers["Content-Length"] if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def do_CONNECT(self) -> None:
                if self.refused():
                    return
                host, _, port = self.path.partition(":")
                with socket.create_connection((host, int(port)), timeout=30) as server:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
                    back.start()
                    pump(self.connection, server)
                    back.join()
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side has gone
