"""SIGUSR1 and SIGUSR2 request a checkpoint; no process dies of them. `tests/test_chain.py` sends them to the stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adainf.generators.diffusion import DiffusionTrainer
from adainf.generators.fit import fit
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.progress import Reporter
from adainf.runtime import distributed, signals
from tests.generators.tiny import diffusion, noise_images
from tests.processes import run_on_ranks

CPU = torch.device("cpu")

PROGRAM = """
import os, signal
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
from adainf.runtime import signals
signals.install()
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR2)
with signals.deferred() as requests:
    print(*(requests.take() for _ in range(2)))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(*(requests.take() for _ in range(2)))
    os.kill(os.getpid(), signal.SIGUSR1)
with signals.deferred(saves=False) as requests:
    os.kill(os.getpid(), signal.SIGUSR1)
    print(requests.take())
"""


def test_without_a_checkpoint_to_save_one_line_is_printed_and_the_work_continues() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    line = "adainf: SIGUSR1: there is no checkpoint to save now; the work continues\n"
    assert (done.returncode, done.stderr) == (0, 2 * line), "outside a loop, and in one without checkpoints, as of verify"
    assert done.stdout.split("\n")[:3] == ["0 0", "1 0", "0"], "a request is taken once, by the loop that received it"


TWICE = """
import os, signal, sys, time
from unittest import mock
from adainf.runtime import signals
now = iter({times})
with mock.patch("time.monotonic", lambda: next(now)):
    signals.install()
    try:
        with signals.deferred():
            for _ in range({count}):
                os.kill(os.getpid(), signal.SIGINT)
        print("saved")
    finally:
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize(
    ("times", "code", "output"),
    [([10.0, 12.0], 75, ""), ([10.0, 10.1], 0, "saved\ncleaned up\n"), ([10.0, 10.1, 12.0], 75, "")],
    ids=["two", "one, passed on by a launcher", "two, the first one passed on"],
)
def test_a_second_ctrl_c_aborts_at_once(times: list[float], code: int, output: str) -> None:
    program = TWICE.format(times=times, count=len(times))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output)
    assert ("aborted by a second Ctrl-C" in done.stderr) == (code == 75)


class Signalled(DiffusionTrainer):
    """Sends the last rank's process SIGUSR1 in step 2."""

    def step(self, step: int, *batch: Any) -> torch.Tensor:
        if step == 2 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().step(step, *batch)


def fit_on_rank(folder: str) -> int:
    signals.install()
    config, images = diffusion(steps=8, checkpoint_every_steps=100), noise_images(64)
    with Checkpoints(Run(folder), "generator") as checkpoints:
        curve = fit(config, Signalled(config, images, CPU), images, CPU, checkpoints, Reporter(quiet=True))
    return curve[-1][0]


def test_a_signal_to_any_process_of_a_gang_saves_one_checkpoint_of_one_step(tmp_path: Path) -> None:
    assert run_on_ranks(2, fit_on_rank, str(tmp_path)) == [8, 8]
    stored = [Path(info.key).name for info in Run(str(tmp_path)).store.list("generator/checkpoints/0")]
    assert stored == ["000000000004.safetensors"], "the ranks exchange requests with one step of delay"
