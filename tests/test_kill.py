"""kill -9 at random points of every stage: run again it goes on, and leaves the bytes of an uninterrupted run."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from adainf.exitcodes import OK
from tests.tiny import adainf, artifact_hashes, write_recipe

KILLS_PER_STAGE = 2
STAGES = [
    "ingest",
    "fit",
    "generate",
    "plan",
    "pretrain none (seed 0)",
    "pretrain vanilla (seed 0)",
    "pretrain adainf (seed 0)",
    "evaluate none",
    "evaluate vanilla",
    "evaluate adainf",
    "evaluate untrained",
    "report",
]


class Chain:
    """One process of the whole chain, and when it said that a stage was done."""

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
        """Until the stage is done or the process has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: stage in self.done_at or self.process.poll() is not None, timeout=300)

    def finish(self) -> int:
        code = self.process.wait(timeout=300)
        self._reader.join()
        return code

    def kill(self) -> bool:
        """kill -9; whether it was still running."""
        running = self.process.poll() is None
        self.process.kill()
        self.finish()
        return running


def test_killed_at_random_points_of_every_stage_the_artifacts_are_the_same_bytes(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    whole = Chain(recipe, tmp_path / "whole")
    assert whole.finish() == OK, whole.output
    times = [whole.done_at[stage] for stage in ("", *STAGES)]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}

    chance = random.Random(0)
    kills = 0
    for before, stage in zip(("", *STAGES), STAGES, strict=False):
        for _ in range(KILLS_PER_STAGE):
            victim = Chain(recipe, tmp_path / "killed")
            victim.wait_for(before)
            time.sleep(chance.uniform(0, seconds[stage]))
            kills += victim.kill()
    assert kills >= 20, "too many processes had ended before they were killed: the test shows nothing"

    last = adainf("run", recipe, "--run", tmp_path / "killed")
    assert last.returncode == OK, last.stderr
    assert artifact_hashes(tmp_path / "killed") == artifact_hashes(tmp_path / "whole")
