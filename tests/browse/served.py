"""The page at a real address, in a thread of this process, and what a plain HTTP client gets from it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import uvicorn

from adainf.browse.catalog import Catalog
from adainf.browse.server import application


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def page(self) -> tuple[dict[str, Any], list[bytes | None]]:
        """What ``/api/page`` describes, and each sample's picture or None, as its docstring has it."""
        (length,) = struct.unpack_from("<I", self.body)
        told, at, pictures = json.loads(self.body[4 : 4 + length]), 4 + length, []
        for sample in told["samples"]:
            size = sample.get("bytes")
            pictures.append(None if size is None else self.body[at : at + size])
            at += size or 0
        assert at == len(self.body)
        return told, pictures


@dataclass(frozen=True)
class Served:
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Header names with _ for -; the path goes as it is, with its dots and slashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return found


@contextmanager
def served(uri: str, token: str | None = None) -> Iterator[Served]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application(Catalog(uri), token), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
