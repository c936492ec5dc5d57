"""`adainf.runtime.distributed` beside the losses: agreement between processes, and the exit of a process."""

from __future__ import annotations

import subprocess
import sys

import torch

from adainf.runtime import distributed
from tests.processes import run_on_ranks

PROGRAM = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("initialized" if dist.is_initialized() else "destroyed"))  # registered first, called last
import adainf.runtime.distributed
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
"""


def test_the_process_group_is_destroyed_before_the_interpreter_exits() -> None:
    """Otherwise its threads outlive Python, and sometimes abort a finished worker (SIGABRT)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "destroyed\n"), done.stderr


def agreed_on_rank(device: str) -> list[int]:
    """Results of five calls; the last rank passes 2 at the third, all others 1."""
    agreement = distributed.Agreement(torch.device(device))
    value = 2 if distributed.rank() == distributed.world_size() - 1 else 1
    return [agreement.highest(value if call == 2 else 0) for call in range(5)]


def test_all_ranks_see_the_highest_value_at_the_same_call() -> None:
    """Would catch ranks that stop at different steps and deadlock."""
    assert run_on_ranks(3, agreed_on_rank, "cpu") == 3 * [[0, 0, 0, 2, 0]]
    assert run_on_ranks(1, agreed_on_rank, "cpu") == [[0, 0, 2, 0, 0]]
