"""A small API server over real HTTP: objects by path, list and watch, and the faults that a test injects."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client.configuration import Configuration

from adainf.kubernetes.controller.api import Api

Object = dict[str, Any]


class ApiServer(ThreadingHTTPServer):
    """Stores objects by path. `faults` are used up first, one per request: a status, "hang" or "cut"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Object] = {}
        self.changed = threading.Condition()
        self.log: list[Object] = []
        """Every change, as a watch event."""
        self.faults: list[Any] = []
        self.expired = 0
        """A watch from an older version gets 410."""
        self.calls: list[tuple[str, str]] = []
        self.tokens: list[str] = []

    def handle_error(self, *_: object) -> None:
        """Ignore clients that were killed."""

    def put(self, path: str, thing: Object, kind: str = "") -> Object:
        """Write an object and notify the watches."""
        with self.changed:
            kind = kind or ("MODIFIED" if path in self.objects else "ADDED")
            version = str(len(self.log) + 1)
            thing = {
                **thing,
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", **thing["metadata"], "resourceVersion": version},
            }
            self.objects[path] = thing
            if kind == "DELETED":
                del self.objects[path]
            self.log.append({"type": kind, "object": thing, "path": path})
            self.changed.notify_all()
            return thing

    def api(self, sleeps: list[float] | None = None) -> Api:
        """A client that appends its pauses to `sleeps` instead of sleeping."""
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self.server_address[1]}"
        configuration.retries = False
        return Api(configuration, "ns", (sleeps if sleeps is not None else []).append)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.fault():
            return
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "watch" in query:
            self.watch(url.path, int(query["resourceVersion"]))
        elif url.path in self.server.objects:
            self.respond(200, self.server.objects[url.path])
        elif url.path.rpartition("/")[2] in ("jobs", "pods", "events", "cronjobs"):
            items = [thing for path, thing in self.server.objects.items() if path.rpartition("/")[0] == url.path]
            self.respond(200, {"items": items, "metadata": {"resourceVersion": str(len(self.server.log))}})
        else:
            self.respond(404, {"message": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.fault():
            return
        url = urlsplit(self.path)
        path = f"{url.path}/{body['metadata']['name']}"
        if path in self.server.objects:
            self.respond(409, {"message": "already exists"})
        else:
            self.respond(201, body if url.query else self.server.put(path, body))

    def do_PATCH(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        if not self.fault():
            self.respond(200, self.server.put(self.path, _merged(self.server.objects[self.path], change)))

    def fault(self) -> bool:
        self.server.calls.append((self.command, self.path))
        self.server.tokens.append(self.headers.get("Authorization", ""))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang":
            time.sleep(1.5)
        if fault in ("hang", "cut"):
            self.close_connection = True
        elif isinstance(fault, int):
            self.respond(fault, {"message": f"fault {fault}"})
        return fault is not None

    def respond(self, status: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(data)

    def watch(self, path: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if version < self.server.expired:
            self.line({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
            return
        with self.server.changed:
            while True:
                for event in self.server.log[version:]:
                    if event["path"].rpartition("/")[0] == path:
                        self.line(event)
                version = len(self.server.log)
                if not self.server.changed.wait(3) or "end the watch" in self.server.faults:
                    return

    def line(self, event: Object) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")
        self.wfile.flush()


def _merged(there: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    return {**there, **{key: _merged(there.get(key, {}), value) for key, value in change.items()}}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
