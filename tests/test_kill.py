"""kill -9 at random points of every stage, and two attempts of one: the bytes are those of an uninterrupted run."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adainf.errors import OK, SUPERSEDED
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.positives import positives
from tests.test_chain import launch
from tests.tiny import RECIPE, adainf, artifact_hashes, write_recipe

STAGES = [
    "ingest",
    "fit",
    "generate",
    "pretrain none (seed 0)",
    "measure",
    "plan",
    "pretrain vanilla (seed 0)",
    "pretrain adainf (seed 0)",
    "evaluate none",
    "evaluate vanilla",
    "evaluate adainf",
    "evaluate untrained",
    "report",
]


class Pipeline:
    """One process of the complete pipeline, and the times at which it reported that a stage was done."""

    def __init__(self, recipe: Path, run: Path) -> None:
        command = [sys.executable, "-m", "adainf", "run", str(recipe), "--run", str(run)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.done_at: dict[str, float] = {"": time.monotonic()}
        self.output: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output.append(line)
                stage, _, what = line.partition(": ")
                if what.startswith("done") or stage == "report":
                    self.done_at.setdefault(stage, time.monotonic())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, stage: str) -> None:
        """Wait until the stage is done or the process has exited."""
        with self._changed:
            assert self._changed.wait_for(lambda: stage in self.done_at or self.process.poll() is not None, timeout=300)

    def finish(self) -> int:
        code = self.process.wait(timeout=300)
        self._reader.join()
        return code

    def kill(self) -> bool:
        """kill -9; return whether it was still running."""
        running = self.process.poll() is None
        self.process.kill()
        self.finish()
        return running


@pytest.mark.parametrize("kills_per_stage", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_at_random_points_of_every_stage_the_artifacts_are_the_same_bytes(tmp_path: Path, kills_per_stage: int) -> None:
    recipe = write_recipe(tmp_path)
    reference = Pipeline(recipe, tmp_path / "reference")
    assert reference.finish() == OK, reference.output
    times = [reference.done_at[stage] for stage in ("", *STAGES)]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}

    chance = random.Random(kills_per_stage)
    kills = 0
    for before, stage in zip(("", *STAGES), STAGES, strict=False):
        for _ in range(kills_per_stage):
            victim = Pipeline(recipe, tmp_path / "killed")
            victim.wait_for(before)
            time.sleep(chance.uniform(0, seconds[stage]))
            kills += victim.kill()
    assert kills >= 0.4 * kills_per_stage * len(STAGES), (
        "too many processes had exited before they were killed: the test tests nothing"
    )

    last = adainf("run", recipe, "--run", tmp_path / "killed")
    assert last.returncode == OK, last.stderr
    assert artifact_hashes(tmp_path / "killed") == artifact_hashes(tmp_path / "reference")


STALLED = """
import os, sys
from adainf.cli import main
from adainf.storage.local import LocalStore

stall_at, *arguments = sys.argv[1:]

def stalling(put):
    def stalled(store, key, data):
        if key.endswith(stall_at):
            print("stalled", flush=True)
            os.read(0, 1)
        return put(store, key, data)
    return stalled

LocalStore.put, LocalStore.put_if_absent = stalling(LocalStore.put), stalling(LocalStore.put_if_absent)
sys.exit(main(arguments))
"""
FITTED = ("fit", "generator", 3)
PRETRAINED = ("pretrain", "pretrain/none/seed-0", 2)


def stalled(key: str, stage: str, recipe: Path, run: Path) -> subprocess.Popen[str]:
    """The stage in its own process; its upload of keys that end with `key` waits for a byte on standard input."""
    command = [sys.executable, "-c", STALLED, key, *stage_command(stage, recipe, run)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert any(line == "stalled\n" for line in process.stdout)
    return process


def stage_command(stage: str, recipe: Path, run: Path) -> list[str]:
    return [stage, str(recipe), "--run", str(run), *(["--arm", "none"] if stage == "pretrain" else [])]


@pytest.fixture(params=[FITTED, PRETRAINED], ids=["fit", "pretrain"])
def stage(request: pytest.FixtureRequest) -> tuple[str, str, int]:
    """Its name and folder, and the steps between two checkpoints."""
    found: tuple[str, str, int] = request.param
    return found


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it up to its generated images. Tests must not change it."""
    folder = tmp_path_factory.mktemp("fitted")
    recipe, run = write_recipe(folder), Run(str(folder / "run"))
    for stage in (ingest, fit, generate):
        stage(load_recipe(recipe), run, Reporter())
    return recipe, folder / "run"


def checkpoint_key(folder: str, step: int) -> str:
    return f"{folder}/checkpoints/{step:012d}.safetensors"


def ingested(tmp_path: Path, name: str) -> tuple[Path, Path]:
    recipe, run = write_recipe(tmp_path), tmp_path / name
    assert adainf("ingest", recipe, "--run", run).returncode == OK
    return recipe, run


def test_killed_during_an_upload_with_a_corrupt_predecessor_it_resumes_from_an_older_checkpoint(
    tmp_path: Path, stage: tuple[str, str, int]
) -> None:
    name, folder, every = stage
    recipe, reference = ingested(tmp_path, "reference")
    assert adainf(*stage_command(name, recipe, reference)).returncode == OK
    _, run = ingested(tmp_path, "killed")
    victim = stalled(checkpoint_key(folder, 3 * every), name, recipe, run)
    victim.kill()
    victim.communicate(timeout=60)
    newest = run / checkpoint_key(folder, 2 * every)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert Checkpoints(Run(str(run)), folder).newest() == every

    last = adainf(*stage_command(name, recipe, run))
    assert last.returncode == OK, last.stderr
    assert f"{newest} is corrupt" in last.stdout
    assert artifact_hashes(run) == artifact_hashes(reference)


def test_a_stale_attempt_that_reappears_stops_and_changes_nothing(tmp_path: Path, stage: tuple[str, str, int]) -> None:
    name, folder, every = stage
    recipe, run = ingested(tmp_path, "run")
    stale = stalled(checkpoint_key(folder, 2 * every), name, recipe, run)
    done = adainf(*stage_command(name, recipe, run))
    assert done.returncode == OK, done.stderr
    before = artifact_hashes(run)
    _, errors = stale.communicate("x", timeout=60)
    assert stale.returncode == SUPERSEDED, errors
    assert "a newer attempt of this stage has taken over" in errors
    assert artifact_hashes(run) == before
    assert not [key for key in before if "checkpoint" in key]


@pytest.mark.parametrize("key", ["train-000002.tar", "train-000002.index.json"])
def test_a_worker_killed_during_an_upload_keeps_all_shards_before_it(
    tmp_path: Path, fitted: tuple[Path, Path], key: str
) -> None:
    """During the upload of shard 2 of 8: of its tar, or of the index after it."""
    recipe, reference = fitted
    run = tmp_path / "killed"
    for name in ("real", "generator"):
        shutil.copytree(reference / name, run / name)
    victim = stalled(key, "generate", recipe, run)
    victim.kill()
    victim.communicate(timeout=60)
    left = {file: file.stat().st_mtime_ns for file in (run / "generated").rglob("train-*")}
    assert len([file for file in left if file.name.endswith(".index.json")]) == 2

    generate(load_recipe(recipe), Run(str(run)), Reporter())
    there = artifact_hashes(run)
    assert there == {key: value for key, value in artifact_hashes(reference).items() if key in there}
    assert "generated/manifest.json" in there
    assert {file: file.stat().st_mtime_ns for file in left} == left, "a complete shard was written again"


def test_a_killed_worker_keeps_the_candidates_that_it_has_written(tmp_path: Path) -> None:
    """During the upload of shard 1 of candidate 1: those of candidate 0 stay, and the rest becomes the same bytes."""
    text = "positives: {draw: {kind: renoise, sigma: 0.1}, candidates: 2}\narms: [none, positives]\nquality: null\n"
    path = write_recipe(tmp_path, RECIPE.replace("train_limit_images: 256", "train_limit_images: 256, shard_images: 64") + text)
    recipe = load_recipe(path)
    reference, run = tmp_path / "reference", tmp_path / "killed"
    ingest(recipe, Run(str(reference)), Reporter())
    fit(recipe, Run(str(reference)), Reporter())
    shutil.copytree(reference, run)
    positives(recipe, Run(str(reference)), Reporter())
    victim = stalled("001-000001.tar", "positives", path, run)
    victim.kill()
    victim.communicate(timeout=60)
    left = {file: file.stat().st_mtime_ns for file in (run / "positives").rglob("*-0*")}
    assert len([file for file in left if file.name.endswith(".index.json")]) == 5

    assert positives(recipe, Run(str(run)), Reporter())
    assert artifact_hashes(run) == artifact_hashes(reference)
    assert {file: file.stat().st_mtime_ns for file in left} == left, "a complete shard was written again"


def test_two_processes_resume_from_the_checkpoint_that_rank_0_found_intact(tmp_path: Path) -> None:
    """As without the corrupt one: both ranks resume from the same step, else their weights would differ."""
    name, folder, every = PRETRAINED
    recipe, run = ingested(tmp_path, "killed")
    victim = stalled(checkpoint_key(folder, 3 * every), name, recipe, run)
    victim.kill()
    victim.communicate(timeout=60)
    without = tmp_path / "without"
    shutil.copytree(run, without)
    (without / checkpoint_key(folder, 2 * every)).unlink()
    newest = run / checkpoint_key(folder, 2 * every)
    newest.write_bytes(newest.read_bytes()[:-1])

    for place in (run, without):
        done = launch(2, recipe, place)
        assert done.returncode == OK, done.stderr
        assert done.stdout.count(f"{newest} is corrupt") == (place == run)
    assert artifact_hashes(run) == artifact_hashes(without)
    assert not [key for key in artifact_hashes(run) if "checkpoint" in key]
