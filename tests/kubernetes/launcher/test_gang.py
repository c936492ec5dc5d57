"""A gang of two launchers: same result as one process; they stop, resume and fail together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adainf.errors import INTERRUPTED, OK
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.serialization import decode
from tests.kubernetes.launcher.pods import Gang, below, record
from tests.tiny import RECIPE, adainf, artifact_hashes, write_recipe

FOLDERS = {"fit": "generator", "pretrain": "pretrain/none/seed-0"}
SHORT = RECIPE.replace("  steps: 12\n", "  steps: 5\n").replace("  steps: 30\n", "  steps: 3\n")
LONG = RECIPE.replace("  steps: 12\n", "  steps: 150\n").replace("checkpoint_every_steps: 2\n", "checkpoint_every_steps: 999\n")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingested")
    assert adainf("ingest", write_recipe(folder), "--run", folder / "run").returncode == OK
    return folder / "run"


def gang(folder: Path, ingested: Path, text: str, job: str, stage: str) -> Gang:
    if not (folder / "run").exists():
        shutil.copytree(ingested, folder / "run")
    arm = ["--arm", "none"] if stage == "pretrain" else []
    return Gang(folder, job, 2, stage, write_recipe(folder, text), "--run", folder / "run", *arm)


def asked(address: str, port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def training(pods: Gang) -> dict[str, Any]:
    """/progress of the first pod, once it trains."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            progress: dict[str, Any] = json.loads(asked(pods.address(0), pods.progress_port, "/progress"))
            if progress["label"]:
                time.sleep(0.3)  # the other node may be a little behind
                return progress
        except OSError:
            pass  # not listening yet
        assert pods.pods[0].poll() is None, pods.output(0)
        time.sleep(0.05)
    raise AssertionError(pods.output(0) + pods.output(1))


@pytest.mark.parametrize("stage", ["fit", "pretrain"])
def test_two_nodes_match_one_process(ingested: Path, tmp_path: Path, stage: str) -> None:
    one = tmp_path / "one"
    shutil.copytree(ingested, one)
    arm = ["--arm", "none"] if stage == "pretrain" else []
    assert adainf(stage, write_recipe(tmp_path, SHORT), "--run", one, *arm).returncode == OK
    pods = gang(tmp_path, ingested, SHORT, "two", stage).start()
    assert pods.wait() == [OK, OK], pods.output(0) + pods.output(1)
    assert "on 2 processes" in pods.output(0)
    assert "Warning" not in pods.output(0)
    manifests = [Run(str(run)).find(FOLDERS[stage]) for run in (one, tmp_path / "run")]
    alone, together = (np.array(manifest.content["curve"]) for manifest in manifests if manifest)
    np.testing.assert_allclose(together, alone, rtol=1e-5, err_msg="losses are those of the global batch")
    if stage == "pretrain":  # Adam amplifies rounding differences in a generator's gradients
        expected, found = (
            decode((run / FOLDERS[stage] / "encoder.safetensors").read_bytes(), "encoder")[0] for run in (one, tmp_path / "run")
        )
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    first = record(tmp_path / "run", "two")
    assert (first["exit_code"], first["reason"], first["done"]) == (OK, "done", first["total"])


def test_killed_stopped_and_resumed_it_equals_an_undisturbed_run(ingested: Path, tmp_path: Path) -> None:
    """Three attempts with different Job names: in the first a process is killed, in the second a node is stopped."""
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    alone = gang(undisturbed, ingested, LONG, "undisturbed", "pretrain").start()
    assert alone.wait() == [OK, OK], alone.output(0)

    killed = gang(tmp_path, ingested, LONG, "killed", "pretrain").start()
    training(killed)
    trees = [below(pod.pid) for pod in killed.pods]
    (worker,) = (pid for pid in trees[1] if b"\0adainf\0pretrain\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    codes = killed.wait()
    assert codes[1] == 128 + signal.SIGKILL, killed.output(1)
    assert codes[0] not in (OK, INTERRUPTED), killed.output(0)
    assert record(tmp_path / "run", "killed", 1)["reason"] == "killed (137): out of memory?"
    left = record(tmp_path / "run", "killed")
    assert (left["exit_code"], left["total"]) == (codes[0], 150)
    assert not [pid for tree in trees for pid in tree if Path(f"/proc/{pid}").exists()], "orphans"

    stopped = gang(tmp_path, ingested, LONG, "stopped", "pretrain").start()
    progress = training(stopped)
    assert (progress["stage"], progress["label"], progress["total"]) == ("pretrain", "pretrain none (seed 0)", 150)
    metrics = asked(stopped.address(0), stopped.progress_port, "/metrics")
    assert 'adainf_stage_items{stage="pretrain",loop="pretrain none (seed 0)"} 150\n' in metrics
    stopped.pods[1].send_signal(signal.SIGTERM)  # not the one that saves
    assert stopped.wait() == [INTERRUPTED, INTERRUPTED], stopped.output(0) + stopped.output(1)
    step = Checkpoints(Run(str(tmp_path / "run")), FOLDERS["pretrain"]).newest()
    assert step is not None
    for index in (0, 1):
        left = record(tmp_path / "run", "stopped", index)
        assert left["exit_code"] == INTERRUPTED
        assert left["reason"] == f"pretrain none (seed 0): saved at step {step} of 150; run the same command again to resume"
        assert json.loads((tmp_path / f"stopped-{index}.term").read_text()) == left

    last = gang(tmp_path, ingested, LONG, "last", "pretrain").start()
    assert last.wait() == [OK, OK], last.output(0)
    assert artifact_hashes(tmp_path / "run") == artifact_hashes(undisturbed / "run")


def test_a_rendezvous_port_in_use_is_named_with_its_variable(tmp_path: Path) -> None:
    alone = Gang(tmp_path, "job", 1, "fit", "recipe.yaml", "--run", tmp_path / "run")
    with socket.create_server((alone.address(0), alone.master_port)):
        assert alone.start(ADAINF_NPROC="2").wait() == [1]
    assert f"port {alone.master_port}, at which the processes meet, is in use" in alone.output(0)
    assert "set ADAINF_MASTER_PORT to a free port" in record(tmp_path / "run", "job")["reason"]
    assert "Traceback" not in alone.output(0)
