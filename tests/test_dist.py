"""What `adainf.dist` does at the end of a process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("joined" if dist.is_initialized() else "left"))  # first come, last called
import adainf.dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
"""


def test_a_process_group_is_left_before_the_interpreter_ends() -> None:
    """Its threads otherwise outlive Python, and now and then end a worker whose work is done by SIGABRT."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
