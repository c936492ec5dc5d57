"""The web application at a real address, in a thread of this process, and a plain HTTP client."""

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
from adainf.browse.server import config_of


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def page(self) -> tuple[dict[str, Any], list[bytes | None]]:
        """The JSON part of ``/api/page``, and the image of each sample or None."""
        (length,) = struct.unpack_from("<I", self.body)
        described, at, images = json.loads(self.body[4 : 4 + length]), 4 + length, []
        for sample in described["samples"]:
            size = sample.get("bytes")
            images.append(None if size is None else self.body[at : at + size])
            at += size or 0
        assert at == len(self.body)
        return described, images


@dataclass(frozen=True)
class Served:
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, path: str, method: str = "GET", **headers: str) -> Response:
        """Header names use _ for -; the path is sent unchanged, with its dots and slashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        result = Response(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        connection.close()
        return result


@contextmanager
def served(uri: str | Catalog, token: str | None = None) -> Iterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    catalog = uri if isinstance(uri, Catalog) else Catalog(uri)
    server = uvicorn.Server(config_of(catalog, token, "critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
