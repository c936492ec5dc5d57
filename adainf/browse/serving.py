"""``adainf shards serve``: the page at an address, until the command is stopped."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket

import uvicorn

from adainf.browse.catalog import Catalog
from adainf.browse.server import application
from adainf.errors import BadInput, Stopped
from adainf.pipeline.progress import Reporter

TOKEN = "ADAINF_BROWSE_TOKEN"
"""A variable of the environment: the token to ask for, where several servers must ask for the same."""
_LEAST_TOKEN = 16


def serve(uri: str, host: str, port: int, reporter: Reporter) -> None:
    """Serve until a signal. Whoever listens beyond loopback asks for a token; one that is made here is in the printed address.

    Raises `BadInput` where there is nothing to show, or the address cannot be listened at.
    """
    catalog = Catalog(uri)
    given = _given_token()
    token = given or (None if _is_loopback(host) else secrets.token_urlsafe(24))
    listening = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    told = f"?token={token}" if token and not given else ""  # a given one is known, and logs are no place for it
    address = f"http://{name}:{listening.getsockname()[1]}/{told}"
    reporter.info(f"serve: {catalog.uri} at {address} (Ctrl-C ends it)")
    # No access log: the token is part of the first address.
    config = uvicorn.Config(application(catalog, token), log_level="warning", access_log=False, server_header=False, ws="none")
    with contextlib.suppress(Stopped):  # the signal that it has been waiting for
        uvicorn.Server(config).run(sockets=[listening])


def _given_token() -> str:
    given = os.environ.get(TOKEN, "")
    if given and len(given) < _LEAST_TOKEN:
        raise BadInput(f"{TOKEN} has {len(given)} characters; set at least {_LEAST_TOKEN}, or unset it and one is made")
    return given


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except (OSError, OverflowError) as error:
        raise BadInput(f"cannot listen at {host}, port {port} ({error}); choose another --port or --host") from None
