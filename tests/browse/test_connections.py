"""Connections that send nothing, half a request, or do not read: none stays, and none keeps others out."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from adainf.browse.connections import Connection
from tests.browse.hostile import tar
from tests.browse.served import Served, served
from tests.shards.sets import make_set

HEAD = b"GET /api/catalog HTTP/1.1\r\nHost: localhost\r\n"
TOKEN = "a-token-of-this-test"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return make_set(f"{tmp_path}/set", 4, 2).uri


def _connect(server: Served, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(data)
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Waits for the end; what the server sent before is read."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        HEAD,
        HEAD + b"\r\n" + HEAD,  # half of a second request
        HEAD + b"Content-Length: 99\r\n\r\nbody",
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_connections_without_a_request_are_closed(
    uri: str, data: bytes, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "CHECK_S", 0.05)
    with served(uri, token) as server:
        assert _is_closed(_connect(server, data))
        assert server.request("/api/catalog").status == (401 if token else 200)


def test_hundreds_of_half_open_connections_keep_nobody_out(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room. Their time-out is out of the way here."""
    monkeypatch.setattr(Connection, "CHECK_S", 600)
    monkeypatch.setattr(Connection, "MAX_CONNECTIONS", 20)
    with served(uri) as server:
        half_open = [_connect(server, HEAD) for _ in range(60)]
        assert server.request("/api/catalog").status == 200
        assert all(_is_closed(connection) for connection in half_open[:40])
        half_open[-1].sendall(b"\r\n")
        assert half_open[-1].recv(12) == b"HTTP/1.1 200"
        for connection in half_open:
            connection.close()


def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that reads slowly is not."""
    monkeypatch.setattr(Connection, "CHECK_S", 0.2)
    image = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0" + bytes(12_000_000)
    (tmp_path / "a.tar").write_bytes(tar({"a.png": image}))
    request = b"GET /api/image?source=tars HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(str(tmp_path)) as server:
        idle, slow = _connect(server, request), _connect(server, request)
        received = 0
        while received < len(image):
            received += len(slow.recv(200_000))
            time.sleep(0.01)
        assert received >= len(image)
        got = 0
        try:
            while data := idle.recv(1 << 20):
                got += len(data)
        except ConnectionResetError:
            pass
        assert got < len(image)
