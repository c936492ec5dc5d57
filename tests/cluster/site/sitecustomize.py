"""DNS of the cluster for the processes of its pods: `socket.getaddrinfo` reads a hosts file first."""

import os
import socket
from pathlib import Path

_system = socket.getaddrinfo


def _resolve(host, *args, **kwargs):  # type: ignore[no-untyped-def]
    hosts = dict(line.split()[::-1] for line in Path(os.environ["CLUSTER_HOSTS"]).read_text().splitlines())
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and host.rstrip(".").endswith(".cluster.local") and host.rstrip(".") not in hosts:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _system(hosts.get(host.rstrip(".") if isinstance(host, str) else host, host), *args, **kwargs)


if "CLUSTER_HOSTS" in os.environ:
    socket.getaddrinfo = _resolve
