"""Launchers as pods: real processes on separate loopback addresses, with DNS names from a hosts table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HOSTS = """
import json, os, socket
known, look_up = json.loads(os.environ["TEST_HOSTS"]), socket.getaddrinfo
socket.getaddrinfo = lambda host, *others, **more: look_up(known.get(host, host), *others, **more)
"""
"""A sitecustomize that replaces the cluster's DNS."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gang:
    """The pods of one Job. Each is a process `python -m adainf.kubernetes.launcher STAGE …`."""

    def __init__(self, folder: Path, job: str, nodes: int, stage: str, *arguments: str | Path) -> None:
        self._folder, self.job, self.nodes = folder, job, nodes
        self.master_port, self.progress_port = free_port(), free_port()
        self._command = [sys.executable, "-m", "adainf.kubernetes.launcher", stage, *map(str, arguments)]
        (folder / "site").mkdir(exist_ok=True)
        (folder / "site" / "sitecustomize.py").write_text(HOSTS)
        self.pods: list[subprocess.Popen[str]] = []

    def start(self, **environment: str) -> Gang:
        self.pods = [self._start(index, environment) for index in range(self.nodes)]
        return self

    def wait(self) -> list[int]:
        """Exit codes by index."""
        for pod in self.pods:
            pod.wait(120)
        return [pod.returncode for pod in self.pods]

    def output(self, index: int) -> str:
        return (self._folder / f"{self.job}-{index}.log").read_text()

    def address(self, index: int) -> str:
        return f"127.1.0.{index + 1}"

    def _start(self, index: int, environment: dict[str, str]) -> subprocess.Popen[str]:
        pod = {
            "JOB_NAME": self.job,
            "JOB_COMPLETION_INDEX": str(index),
            "POD_NAMESPACE": "ns",
            "POD_IP": self.address(index),
            "ADAINF_MASTER_PORT": str(self.master_port),
            "ADAINF_PROGRESS_PORT": str(self.progress_port),
            "ADAINF_TERMINATION_LOG": str(self._folder / f"{self.job}-{index}.term"),
            "TEST_HOSTS": json.dumps({f"{self.job}-0.adainf-workers.ns.svc.cluster.local": self.address(0)}),
            "PYTHONPATH": f"{self._folder / 'site'}:{ROOT}",
        }
        if self.nodes > 1:
            pod |= {"ADAINF_NNODES": str(self.nodes), "ADAINF_NPROC": "1"}
        with (self._folder / f"{self.job}-{index}.log").open("w") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, text=True, env=os.environ | pod | environment)


def record(run: Path, job: str, index: int = 0) -> dict[str, Any]:
    """The termination record in the run."""
    found: dict[str, Any] = json.loads((run / "logs" / "pods" / f"{job}-{index}.json").read_text())
    return found


def below(pid: int) -> list[int]:
    """All descendants of a process, by `ps`."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [pid]
    for parent in found:
        found.extend(child for child, of in pairs if of == parent)
    return found[1:]
