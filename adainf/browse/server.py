"""``adainf shards serve``: listens on an address and serves the page until interrupted."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import secrets
import socket

import uvicorn

from adainf.browse.app import application
from adainf.browse.catalog import Catalog
from adainf.browse.connections import Connection
from adainf.errors import BadInput, Stopped
from adainf.pipeline.progress import Reporter

TOKEN = "ADAINF_BROWSE_TOKEN"
"""Environment variable with the access token, for replicas that must share a token."""
_MIN_TOKEN_LENGTH = 16
_BACKLOG = 128
_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""


def serve(uri: str, host: str, port: int, reporter: Reporter, no_token: bool = False) -> None:
    """Serve until a signal. Requires a token, also on loopback, which all users of a machine share. A generated one is part of
    the printed address.

    Raises `BadInput` if there is nothing to show, if the address is not available, or for `no_token` beyond loopback.
    """
    if no_token and not _is_loopback(host):
        raise BadInput(f"--no-token would give the images to everyone who reaches {host}; remove it, or --host")
    catalog = Catalog(uri)
    configured = "" if no_token else _configured_token()
    token = None if no_token else configured or secrets.token_urlsafe(24)
    listener = _listen(host, port)
    _return_memory()
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    query = f"?token={token}" if token and not configured else ""  # logs must not contain a configured token
    address = f"http://{name}:{listener.getsockname()[1]}/{query}"
    reporter.result(f"serve: {catalog.uri} at {address} (press Ctrl-C to stop)")
    with contextlib.suppress(Stopped):  # raised by the signal that stops the server
        uvicorn.Server(config_of(catalog, token)).run(sockets=[listener])


def config_of(catalog: Catalog, token: str | None, log_level: str = "warning") -> uvicorn.Config:
    """The settings of the web server."""
    # No access log: the token is part of the first address.
    return uvicorn.Config(
        application(catalog, token),
        http=Connection,
        ws="none",
        lifespan="off",
        log_level=log_level,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
    )


def _return_memory() -> None:
    """Make glibc return the memory of images when they are released. By default it raises this threshold and keeps them."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _configured_token() -> str:
    token = os.environ.get(TOKEN, "")
    if token and len(token) < _MIN_TOKEN_LENGTH:
        raise BadInput(
            f"{TOKEN} is too short ({len(token)} characters); set at least {_MIN_TOKEN_LENGTH}, or unset it to generate a token"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise BadInput(f"cannot listen on {host}, port {port} ({error}); choose another --port or --host") from None
