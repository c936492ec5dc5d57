"""The command of a SeaweedFS server that serves S3 on loopback only; for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
import socket
import sysconfig
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

SERVICES = ("master", "volume", "filer", "s3")


class Command(NamedTuple):
    words: list[str]
    port: int
    """Of S3."""


def seaweed(short: Path, data: Path, identities: list[dict[str, Any]], volumes: int, volume_mb: int) -> Command | None:
    """A server on free ports that keeps its objects in `data`; None if the binary is not installed.

    `short`: a folder with a short path, for sockets and keys.
    """
    weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if weed is None:
        return None
    ports = _free_ports(2 * len(SERVICES))
    (short / "keys.json").write_text(json.dumps({"identities": identities}))
    options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={short}/keys.json"]
    for service, port, grpc_port in zip(SERVICES, ports[:4], ports[4:], strict=True):
        options += [f"-{service}.port={port}", f"-{service}.port.grpc={grpc_port}"]
    options += [f"-{service}.localSocket={short}/{service}" for service in ("filer", "s3")]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    options += [f"-volume.max={volumes}", f"-master.volumeSizeLimitMB={volume_mb}"]
    return Command([weed, "server", f"-dir={data}", *options], ports[3])


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all bound at once, so that all differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
