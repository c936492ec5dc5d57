"""Run a function on several real processes of a gloo process group, and collect the results."""

from __future__ import annotations

import io
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PRELOAD = ["adainf.stages.evaluate", "adainf.stages.fit", "adainf.stages.pretrain", "tests.tiny"]
"""Imported once by the server from which all ranks are forked: each would take several CPU seconds to import torch."""


def run_on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(*arguments)` on each of `world` processes; results in rank order. Any failure fails the caller."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    results: Queue[tuple[int, Any, str]] = context.Queue()
    processes = [context.Process(target=_main, args=(rank, world, port, results, function, arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    try:
        gathered = [results.get(timeout=120) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=20)
            if process.is_alive():
                process.kill()
    failures = [error for _, _, error in gathered if error]
    assert not failures, failures[0]
    ordered = sorted(gathered, key=lambda item: item[0])
    return [torch.load(io.BytesIO(value), weights_only=True) for _, value, _ in ordered]


def _main(
    rank: int, world: int, port: int, results: Queue[Any], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    # The environment of a launcher; without it accelerate treats each process as the only one.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    try:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        # As bytes: tensors in a queue are in shared memory, which ends with their process.
        value = io.BytesIO()
        torch.save(function(*arguments), value)
        results.put((rank, value.getvalue(), ""))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        results.put((rank, None, traceback.format_exc()))
