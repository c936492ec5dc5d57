"""Processes that are killed or exit during an upload."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from tests.pipeline.conftest import (
    FOLDER,
    TIMEOUT_S,
    contents,
    saved,
    started,
    stored_steps,
)

CHILD = """
import os, socket, sys, time
import torch
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints

def pause(*_):
    print("halfway", flush=True)
    time.sleep(600)

sent_bytes = 0

def half(own, data, *flags):
    global sent_bytes
    sent_bytes += len(data)
    if sent_bytes > 2_000_000:
        pause()
    return sendall(own, data, *flags)

checkpoints = Checkpoints(Run(sys.argv[1]), sys.argv[2])
checkpoints.begin()
for step in (1, 2):
    checkpoints.save(step, {"weights": torch.full((1_000_000,), float(step))}, {"step": step})
checkpoints.wait()
# On disk everything is written, but neither flushed nor renamed; to S3 half of it is sent.
sendall, socket.socket.sendall, os.fsync = socket.socket.sendall, half, pause
checkpoints.save(3, {"weights": torch.full((1_000_000,), 3.0)}, {"step": 3})
checkpoints.wait()
"""


def test_killed_during_an_upload_it_resumes_from_the_previous_checkpoint(uri: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, uri, FOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "halfway\n"
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    lines: list[str] = []
    checkpoints = started(uri, log=lines.append)
    assert checkpoints.newest() == 2
    assert not lines, "an interrupted upload leaves no checkpoint, not a corrupt one"
    assert torch.equal(checkpoints.load(2)[0]["weights"], torch.full((1_000_000,), 2.0))
    saved(checkpoints, 3)
    assert stored_steps(uri) == [2, 3]
    checkpoints.delete()
    assert contents(uri) == {}


EXITS = """
import sys, time
import torch
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.storage.local import LocalStore

put = LocalStore.put

def slow(*arguments):
    time.sleep(1)
    return put(*arguments)

LocalStore.put = slow
checkpoints = Checkpoints(Run(sys.argv[1]), sys.argv[2])
checkpoints.begin()
checkpoints.save(1, {f"tensor {i}": torch.ones(10) for i in range(20_000)}, None)
if sys.argv[3] == "waits":
    checkpoints.wait()
sys.exit(75)
"""


@pytest.mark.parametrize("how", ["waits", "leaves"])
def test_a_process_exits_with_its_own_code_after_a_complete_upload(tmp_path: Path, how: str) -> None:
    """The thread must not be killed inside torch, which would abort the process."""
    uri = str(tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", EXITS, uri, FOLDER, how], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (75, b"")
    assert Checkpoints(Run(uri), FOLDER).newest() == 1
