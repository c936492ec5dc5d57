"""Several processes of one stage, on one node or many, as torch elastic runs them.

The rendezvous is static: node rank is the pod's index, so that the first pod is rank 0, which writes. Nothing is started again
here: a lone process that comes back joins a world that is dead. Another attempt is another Job, with other names.
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
from adainf.kubernetes.launcher.env import SERVICE, Pod
from adainf.kubernetes.launcher.stop import Stop

NAME_PATIENCE_S = 600.0
"""Until the first pod must have a name: it may have to wait for its node and its image."""
_RENDEZVOUS_PATIENCE_S = 900
_SAME_MOMENT_S = 1


class Failure(NamedTuple):
    """A process that did not end well."""

    exit_code: int
    """Negative for a signal."""
    seen_s: int


def run_gang(pod: Pod, command: Sequence[str], stop: Stop) -> int:
    """Run Python with the arguments `command` in all processes of this node; returns the exit code of the stage.

    Raises `BadInput` where there are no GPUs, `Interrupted` and `AdaInfError` where the other nodes were not found.
    """
    processes = _processes(pod)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    address = wait_for_master(pod, stop) if pod.nodes > 1 else pod.ip or "127.0.0.1"
    results: list[int] = []
    # Beside the main thread elastic leaves signals alone. Its own way with them loses the processes' exit codes.
    thread = threading.Thread(target=lambda: results.append(_elastic(pod, processes, address, command, stop)), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if stop.received and not stop.passed_on and not stop.pass_on():
            raise Interrupted("stopped while the nodes were meeting; nothing had begun")
    return results[0] if results else 1  # elastic's own traceback is in the output


def _processes(pod: Pod) -> int:
    """How many processes this node has; tells Accelerate when they are to use CPUs."""
    if pod.processes != "auto":
        if pod.processes:
            os.environ["ACCELERATE_USE_CPU"] = "true"
        return int(pod.processes or 1)
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise BadInput(
            "ADAINF_NPROC is auto, one process for each GPU, and torch sees no GPU here; ask for nvidia.com/gpu in the pod's "
            "limits, look at `adainf doctor`, or set ADAINF_NPROC to a number of CPU processes"
        )
    return found


def wait_for_master(pod: Pod, stop: Stop, patience_s: float = NAME_PATIENCE_S) -> str:
    """The address of the first pod. A name is unknown for the first seconds of a pod, wherever it runs."""
    deadline = time.monotonic() + patience_s
    while not stop.received:
        try:
            return str(socket.getaddrinfo(pod.master, pod.master_port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise AdaInfError(
                    f"{pod.master} has no address after {patience_s:.0f} s ({error.strerror}): look whether pod {pod.job}-0 "
                    f"runs, whether Service {SERVICE} is there, headless, with publishNotReadyAddresses and a selector that "
                    f"matches the pod's labels, whether the pod has subdomain: {SERVICE}, and whether the cluster's domain "
                    f"is {pod.domain} (ADAINF_CLUSTER_DOMAIN)"
                ) from None
        time.sleep(random.uniform(0.5, 1.5))  # so that many nodes do not ask at once
    raise Interrupted(f"stopped while waiting for {pod.master}; nothing had begun")


def _elastic(pod: Pod, processes: int, address: str, command: Sequence[str], stop: Stop) -> int:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the record says it in one sentence
    logs = tempfile.TemporaryDirectory(prefix="adainf-gang-")  # elastic's own would stay behind
    config = LaunchConfig(
        min_nodes=pod.nodes,
        max_nodes=pod.nodes,
        nproc_per_node=processes,
        run_id=pod.job,
        rdzv_backend="static",
        rdzv_endpoint=f"[{address}]:{pod.master_port}" if ":" in address else f"{address}:{pod.master_port}",
        rdzv_configs={"rank": pod.index, "timeout": _RENDEZVOUS_PATIENCE_S},
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
    return OK


def exit_code_of(failures: Sequence[Failure], stopped: bool) -> int:
    """What a node's processes mean together; `failures` in the order in which they were seen, at least one.

    Elastic ends the others by SIGTERM once one has failed, and by SIGKILL later. So only a code that no signal makes counts
    whenever it comes, and what a process says of a stop counts where it was the first to end, or the pod was asked to stop.
    """
    codes = [each.exit_code for each in failures]
    for code in codes:
        if code in (BAD_INPUT, STAGE_FAILED, SUPERSEDED):
            return code
    if codes[0] == INTERRUPTED or (stopped and {INTERRUPTED, -signal.SIGTERM} & set(codes)):
        return INTERRUPTED
    first_s = min(each.seen_s for each in failures)
    for code, seen_s in failures:
        # Others may notice a death, and end by it, before it is seen here.
        if code < 0 and code != -signal.SIGTERM and seen_s <= first_s + _SAME_MOMENT_S:
            return 128 - code
    return codes[0] if codes[0] > 0 else 128 - codes[0]
