"""What `adainf.runtime.distributed` does among several processes beside losses, and at the end of one."""

from __future__ import annotations

import subprocess
import sys

import torch

from adainf.runtime import distributed
from tests.processes import run_on_ranks

PROGRAM = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("joined" if distributed.is_initialized() else "left"))  # first come, last called
import adainf.runtime.distributed
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
"""


def test_a_process_group_is_left_before_the_interpreter_ends() -> None:
    """Its threads otherwise outlive Python, and now and then end a worker whose work is done by SIGABRT."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def agreed_on_rank(device: str) -> list[bool]:
    """Answers to five calls, where the last rank raises its flag at the third."""
    agreement = distributed.Agreement(torch.device(device))
    return [agreement.any_rank(call == 2 and distributed.rank() == distributed.world_size() - 1) for call in range(5)]


def test_all_ranks_hear_of_a_flag_at_the_same_call() -> None:
    """Would catch ranks that stop at different steps and wait for each other for good."""
    assert run_on_ranks(3, agreed_on_rank, "cpu") == 3 * [[False, False, False, True, False]]
    assert run_on_ranks(1, agreed_on_rank, "cpu") == [[False, False, True, False, False]]
