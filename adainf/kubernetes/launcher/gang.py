"""Runs the processes of a gang, on one or more nodes, by torch elastic.

The rendezvous is static: the node rank is the pod's index, so the first pod has rank 0, which writes. Processes are not
restarted: a single restarted process could not rejoin its process group. The next attempt is a new Job with other DNS names.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED, SUPERSEDED, AdaInfError, BadInput, Interrupted
from adainf.kubernetes.launcher.env import Pod
from adainf.kubernetes.launcher.stop import Stop

NAME_TIMEOUT_S = 600.0
"""Time-out for the DNS name of the first pod, which may have to wait for its node and its image."""
_RENDEZVOUS_TIMEOUT_S = 900
_CONCURRENT_S = 1
"""Failures within this time count as simultaneous."""


class Failure(NamedTuple):
    """A failed process."""

    exit_code: int
    """Negative for a signal."""
    seen_s: int


def run_gang(pod: Pod, command: Sequence[str], stop: Stop) -> int:
    """Run Python with the arguments `command` in all processes of this node. Returns the exit code of the stage.

    Raises `BadInput` without GPUs, `AdaInfError` if the first node is not found or its port is in use, and `Interrupted` for a
    stop before that.
    """
    processes = _processes(pod)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    address = wait_for_master(pod, stop) if pod.nodes > 1 else pod.ip or "127.0.0.1"
    results: list[int | AdaInfError] = []

    def work() -> None:
        try:
            results.append(_elastic(pod, processes, address, command, stop))
        except AdaInfError as error:
            results.append(error)

    # Outside the main thread elastic installs no signal handlers. Its handlers would lose the processes' exit codes.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if stop.received and not stop.passed_on and not stop.pass_on():
            raise Interrupted("interrupted during the rendezvous: run the same command again to resume")
    result = results[0] if results else 1  # elastic has printed its traceback
    if isinstance(result, AdaInfError):
        raise result
    return result


def _processes(pod: Pod) -> int:
    """Number of processes on this node. Configures Accelerate if they use CPUs."""
    if pod.processes != "auto":
        if pod.processes:
            os.environ["ACCELERATE_USE_CPU"] = "true"
        return int(pod.processes or 1)
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise BadInput(
            "ADAINF_NPROC is auto, one process per GPU, but torch sees no GPU here: request nvidia.com/gpu in the pod's "
            "limits, run `adainf doctor`, or set ADAINF_NPROC to a number of CPU processes"
        )
    return found


def wait_for_master(pod: Pod, stop: Stop, timeout_s: float = NAME_TIMEOUT_S) -> str:
    """Resolve the address of the first pod. DNS does not know a new pod for some seconds, on any cluster."""
    deadline = time.monotonic() + timeout_s
    while not stop.received:
        try:
            return str(socket.getaddrinfo(pod.master, pod.master_port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise AdaInfError(
                    f"{pod.master} does not resolve after {timeout_s:.0f} s ({error.strerror}): check that pod {pod.job}-0 "
                    f"runs, that Service {pod.service} exists, is headless, has publishNotReadyAddresses and a selector that "
                    f"matches the pod's labels, that the pod has subdomain {pod.service}, and that the cluster's domain is "
                    f"{pod.domain} (ADAINF_CLUSTER_DOMAIN)"
                ) from None
        time.sleep(random.uniform(0.5, 1.5))  # jitter: many nodes must not query DNS in lockstep
    raise Interrupted(f"interrupted while waiting for {pod.master}: run the same command again to resume")


def _elastic(pod: Pod, processes: int, address: str, command: Sequence[str], stop: Stop) -> int:
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the termination record has the reason
    logs = tempfile.TemporaryDirectory(prefix="adainf-gang-")  # elastic does not delete its own
    config = LaunchConfig(
        min_nodes=pod.nodes,
        max_nodes=pod.nodes,
        nproc_per_node=processes,
        run_id=pod.job,
        rdzv_backend="static",
        rdzv_endpoint=f"[{address}]:{pod.master_port}" if ":" in address else f"{address}:{pod.master_port}",
        rdzv_configs={"rank": pod.index, "timeout": _RENDEZVOUS_TIMEOUT_S},
        local_addr=pod.ip,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
    )
    try:
        with logs:
            elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        failures = [Failure(each.exitcode, each.timestamp) for each in error.failures.values()]
        return exit_code_of(failures, stop.received)
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise AdaInfError(
            f"port {pod.master_port}, at which the processes meet, is in use on {address}: set ADAINF_MASTER_PORT to a free "
            "port, the same one on all nodes"
        ) from None
    return OK


def exit_code_of(failures: Sequence[Failure], stopped: bool) -> int:
    """The exit code of a node, from the failures of its processes (at least one) in the order of their detection.

    After a first failure, elastic ends the other processes by SIGTERM, and later by SIGKILL. Codes that no signal causes
    therefore take precedence. INTERRUPTED counts if it came first or the pod was asked to stop.
    """
    codes = [each.exit_code for each in failures]
    for code in codes:
        if code in (BAD_INPUT, STAGE_FAILED, SUPERSEDED):
            return code
    if codes[0] == INTERRUPTED or (stopped and {INTERRUPTED, -signal.SIGTERM} & set(codes)):
        return INTERRUPTED
    first_s = min(each.seen_s for each in failures)
    for code, seen_s in failures:
        # Other processes may fail because of a killed one before elastic detects the kill.
        if code < 0 and code != -signal.SIGTERM and seen_s <= first_s + _CONCURRENT_S:
            return 128 - code
    return codes[0] if codes[0] > 0 else 128 - codes[0]
