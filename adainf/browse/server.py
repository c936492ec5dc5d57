"""``adainf shards serve``: listens on an address and serves the page until interrupted."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket

import uvicorn

from adainf.browse.app import application
from adainf.browse.catalog import Catalog
from adainf.errors import BadInput, Stopped
from adainf.pipeline.progress import Reporter

TOKEN = "ADAINF_BROWSE_TOKEN"
"""Environment variable with the access token, for replicas that must share a token."""
_MIN_TOKEN_LENGTH = 16


def serve(uri: str, host: str, port: int, reporter: Reporter) -> None:
    """Serve until a signal. Beyond loopback, requires a token; a generated token is part of the printed address.

    Raises `BadInput` if there is nothing to show, or if the address is not available.
    """
    catalog = Catalog(uri)
    configured = _configured_token()
    token = configured or (None if _is_loopback(host) else secrets.token_urlsafe(24))
    listener = _listen(host, port)
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    query = f"?token={token}" if token and not configured else ""  # logs must not contain a configured token
    address = f"http://{name}:{listener.getsockname()[1]}/{query}"
    reporter.info(f"serve: {catalog.uri} at {address} (press Ctrl-C to stop)")
    # No access log: the token is part of the first address.
    config = uvicorn.Config(application(catalog, token), log_level="warning", access_log=False, server_header=False, ws="none")
    with contextlib.suppress(Stopped):  # raised by the signal that stops the server
        uvicorn.Server(config).run(sockets=[listener])


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
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except (OSError, OverflowError) as error:
        raise BadInput(f"cannot listen on {host}, port {port} ({error}); choose another --port or --host") from None
