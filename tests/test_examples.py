"""Runs the examples of the documentation as a reader does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adainf.shards import Source, open_stream
from tests.shards.sets import make_set

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "train_resnet.py"


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_of_the_streaming_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read sets below runs/mine, one after the other as a reader does."""
    for name, images in (("real", 100), ("generated", 300), ("more", 50)):
        make_set(f"{tmp_path}/runs/mine/{name}", images, 20, size_px=8)
    monkeypatch.chdir(tmp_path)
    fences = re.findall(r"^```python\n(.*?)^```", (EXAMPLE.parents[1] / "streaming.md").read_text(), re.MULTILINE | re.DOTALL)
    examples = [fence for fence in fences if "open_stream(sources, global_batch=64" in fence]
    assert len(examples) == 2
    names: dict[str, object] = {"Source": Source, "open_stream": open_stream}
    for example in examples:
        exec(example, names)


def test_an_external_training_loop_resumes_on_two_processes(tmp_path: Path) -> None:
    make_set(f"{tmp_path}/real", 64, 16, size_px=8)
    make_set(f"{tmp_path}/generated", 128, 32, size_px=8)
    arguments = (str(EXAMPLE), "real=10", "generated", "--global-batch", "8")
    first = run(tmp_path, sys.executable, *arguments, "--steps", "11")
    assert "step 0: loss" in first
    assert "step 10: loss" in first
    second = run(tmp_path, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments, "--steps", "21")
    assert "step 20: loss" in second
    assert "step 10: loss" not in second
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["stream"]["step"] == 21
    assert saved["stream"]["weights"] == {"real": 10.0, "generated": 1.0}
