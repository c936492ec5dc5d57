"""One invocation of a study: its blocks, the phases of tasks of a block, and the results file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, THREADS, commit
from benchmarks.studies import data, results
from benchmarks.studies.cells import (
    FITTED_ON,
    Part,
    Setup,
    export_images,
    quality_line,
    score_file,
    share_controls,
    write_score,
)

QUICK: dict[str, Any] = {"pretrain.steps": 20, "pretrain.warmup_fraction": 0.1, "generate.images": 600, "quality.images": 100}
QUICK_GENERATOR: dict[str, Any] = {"generator.steps": 20}

Command = list[str]


class Study:
    """One invocation of the command."""

    name: str
    """Of its recipe and its results."""
    title: str
    blocks: tuple[str, ...]
    crops_compared: tuple[float, float]
    """Block `crop`: the stronger and the weaker min scale, whose difference is compared with and without inflation."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work, self.output, self.quick = Path(arguments.work).resolve(), Path(arguments.output), bool(arguments.quick)
        self.processes = int(arguments.processes)
        self.until = time.monotonic() + arguments.budget_s if arguments.budget_s is not None else float("inf")
        self.recipe = yaml.safe_load((ROOT / f"recipes/{self.name}.yaml").read_text())
        self.json = self.output / f"{self.name}.json"
        self.found: dict[str, Any] = json.loads(self.json.read_text()) if self.json.exists() else {"blocks": {}}

    def setup(
        self,
        variant: str,
        real: int,
        source: str,
        arms: Sequence[str],
        seeds: Sequence[int],
        label: str = "",
        changes: Mapping[str, Any] | None = None,
    ) -> Setup:
        """A run; with --quick a tiny one."""
        overrides = dict(changes or {})
        if self.quick:
            overrides |= {name: value for name, value in QUICK.items() if self.recipe[name.partition(".")[0]] is not None}
            overrides |= QUICK_GENERATOR if source in ("own", "fit") else {}
            overrides |= {"plan.verify.deciding_seeds": 2} if "verified" in arms else {}
            seeds = seeds[:2]
        return Setup(variant, real, source, tuple(arms), tuple(seeds), overrides, label)

    def block(self, name: str) -> tuple[list[Setup], Part]:
        """The runs of a block, and the split that scores their cells."""
        raise NotImplementedError

    def primary(self, scores: results.Scores) -> list[dict[str, Any]]:
        """The primary comparisons of the main block; empty while an arm has fewer than two seeds."""
        raise NotImplementedError

    def differences(self, name: str, scores: results.Scores) -> dict[str, Any]:
        """The paired differences that the results of a block show."""
        return _gate_differences(scores) if name == "gate" else results.differences(scores)

    def arm_name(self, block: str, setup: Setup, arm: str) -> str:
        """`none`, `vanilla-own`, `vanilla-perfect-crop10` (percent); in the gate with the regime."""
        if block == "gate":
            return f"{arm}-{setup.variant}-{setup.real_images}"
        parts = (arm, setup.control_label) if arm == "none" else (arm, setup.source, setup.label)
        return "-".join(filter(None, parts))

    def _files(self, block: str, setups: Sequence[Setup], part: Part) -> Iterator[tuple[str, int, Path]]:
        """For each cell of a block: the arm's name in the results, the seed, and the score file."""
        for setup in setups:
            for arm in setup.arms:
                for seed in setup.seeds:
                    yield self.arm_name(block, setup, arm), seed, score_file(setup.run(self.work), arm, seed, part)

    def one_factor_sweep(self, variant: str, real: int, crops: Sequence[float], jitters: Sequence[float]) -> list[Setup]:
        """One-factor-at-a-time sweep of the default augmentation's crop and jitter, and the recipe's own setting."""
        labels = {f"crop{100 * scale:g}": augmented(min_scale=scale) for scale in crops}
        labels |= {f"jitter{100 * by:g}": augmented(jitter_strength=by) for by in jitters}
        labels |= {"": {}}  # the recipe's own, whose cells are the main block's
        return [self.setup(variant, real, "perfect", ("none", "vanilla"), range(3), *of) for of in labels.items()]

    def run(self, name: str) -> None:
        """Compute the block's cells within the time budget, and write the results so far."""
        self._restore(name)
        setups, part = self.block(name)
        if not self.quick and len(commit().split()) > 1:
            print("study: the working tree has uncommitted changes; commit them, so that the results name a commit", flush=True)
        for variant in dict.fromkeys(setup.variant for setup in setups):
            data.write(variant, self.work / "data")
        for tasks in self._phases(setups, part):
            self._run_tasks(tasks)
        self._write(name, setups, part)

    def _restore(self, first: str) -> None:
        """Restore the cells' score files from the JSON in --output. Blocks share cells, and cells of another machine differ as
        those of another seed do, so a block's own scores take precedence: pairs then come from one machine."""
        known = [(name, block) for name, block in self.found["blocks"].items() if name in self.blocks]
        for name, block in sorted(known, key=lambda block: block[0] != first):
            setups, part = self.block(name)
            for arm, seed, file in self._files(name, setups, part):
                score = block["scores"].get(arm, {}).get(str(seed))
                if score and not file.exists():
                    write_score(file, score)

    def _phases(self, setups: Sequence[Setup], part: Part) -> Iterator[list[Command]]:
        """Phases of independent tasks, without those that are done."""
        fitted: dict[Path, Setup] = {}  # runs whose images others import, by image file
        for setup in setups:
            file = self.work / "data" / f"{setup.variant}-{setup.source}.npz"
            if setup.source in FITTED_ON and not file.exists():
                images, changes = FITTED_ON[setup.source]
                fitted[file] = self.setup(setup.variant, images, "fit", ("vanilla",), range(1), setup.source, changes)
        controls: dict[tuple[str, int, str], Setup] = {}
        for setup in setups:
            # Arm none does not depend on the source, so it is trained in one run and copied to the others.
            controls.setdefault((setup.variant, setup.real_images, setup.control_label), setup)
        fits = [task for setup in fitted.values() for task in self._prepared(setup)]
        yield fits + self._cells([(setup, ("none",)) for setup in controls.values() if "none" in setup.arms], part)
        for file, setup in fitted.items():
            if Path(setup.run(self.work), "generated/manifest.json").exists():
                export_images(setup.run(self.work), file)
        for setup in setups:
            share_controls(setup.run(self.work), controls[setup.variant, setup.real_images, setup.control_label].run(self.work))
        yield [task for setup in setups for task in self._prepared(setup)]
        yield self._cells([(setup, setup.arms) for setup in setups], part)

    def _prepared(self, setup: Setup) -> list[Command]:
        run, last = setup.run(self.work), "verify/manifest.json"
        if "verified" not in setup.arms:
            last = "plan.json" if {"weak", "adainf"} & set(setup.arms) else "quality/manifest.json"
        return [] if setup.arms == ("none",) or (run / last).exists() else [self._task(setup, "prepare")]

    def _cells(self, arms: Sequence[tuple[Setup, Sequence[str]]], part: Part) -> list[Command]:
        """The missing cells of these arms, seed by seed, so that an early stop leaves complete comparisons."""
        cells = [(seed, setup, arm) for setup, of in arms for arm in of for seed in setup.seeds]
        missing = [cell for cell in cells if not score_file(cell[1].run(self.work), cell[2], cell[0], part).exists()]
        return [self._task(setup, arm, str(seed), part) for seed, setup, arm in sorted(missing, key=lambda cell: cell[0])]

    def _task(self, setup: Setup, *what: str) -> Command:
        recipe = setup.write(self.recipe, self.work)
        return [sys.executable, "-m", "benchmarks.studies.cells", str(recipe), str(setup.run(self.work)), *what]

    def _run_tasks(self, tasks: Sequence[Command]) -> None:
        """Run up to `processes` tasks at a time within the time budget. A failed task is reported, its cell stays missing."""
        environment = {**os.environ, **THREADS, "ADAINF_CACHE": str(self.work / "cache")}
        waiting, running = list(tasks), dict[subprocess.Popen[bytes], Command]()
        try:
            while running or (waiting and time.monotonic() < self.until):
                while waiting and len(running) < self.processes and time.monotonic() < self.until:
                    task = waiting.pop(0)
                    running[subprocess.Popen(task, cwd=ROOT, env=environment)] = task
                    print(f"study: {' '.join([Path(task[4]).name, *task[5:]])} ({len(waiting)} left)", flush=True)
                time.sleep(0.2)
                for process in [one for one in running if one.poll() is not None]:
                    task = running.pop(process)
                    if process.returncode:
                        print(f"study: exit code {process.returncode}: {shlex.join(task)}; run it to see the error", flush=True)
        finally:
            for process in running:
                process.terminate()

    def _write(self, name: str, setups: Sequence[Setup], part: Part) -> None:
        scores: dict[str, dict[int, Any]] = {}
        files = list(self._files(name, setups, part))
        for arm, seed, file in files:
            if file.exists():
                scores.setdefault(arm, {})[seed] = json.loads(file.read_text())
        present = [score for of in scores.values() for score in of.values()]
        wanted, missing = len(files), sum(not file.exists() for _, _, file in files)
        block: dict[str, Any] = {
            "command": f"python -m benchmarks.study {shlex.join(sys.argv[1:])}",
            **{key: ", ".join(sorted({score[key] for score in present})) for key in ("commit", "date", "machine")},
            "judged_on": part,
            "cells": wanted,
            "missing": missing,
            "arms": results.arm_table(scores),
            "differences": self.differences(name, scores),
        }
        if name == "gate":
            chosen = results.best(list(block["differences"]), block["differences"])
            block["regime"] = chosen.split()[0].split("-")[1:] if chosen else None
            block["notes"] = [
                f"The regime of the other blocks: {' '.join(block['regime']) if chosen else 'none; nothing passed'}."
            ]
        self.found["blocks"][name] = block
        if name in ("quality", "longer"):
            block["notes"] = [f"* {line}" for setup in setups if (line := quality_line(setup.source, setup.run(self.work)))]
        if name == "crop" and (line := results.interaction(scores, *self.crops_compared)):
            block["notes"] = [line]
        if name == "main":
            block["primary"] = self.primary(scores)
            self.found |= {key: block[key] for key in ("arms", "differences", "command", "commit", "machine")}
        block["scores"] = scores
        self.output.mkdir(parents=True, exist_ok=True)
        self.json.write_text(json.dumps(self.found, indent=2) + "\n")
        self.json.with_suffix(".md").write_text(results.markdown(self.found, self.name, self.title))
        if name in results.PAPER and block["arms"]:
            results.draw(block["arms"], results.TITLES[name], self.output / f"{self.name}-{name}.png")
        print(f"study: {name}: {wanted - missing} of {wanted} cells; {self.json}", flush=True)


def augmented(**settings: float) -> dict[str, float]:
    """Changes of the recipe's default augmentation."""
    return {f"pretrain.augmentation.{name}": value for name, value in settings.items()}


def _gate_differences(scores: results.Scores) -> dict[str, Any]:
    """`vanilla` with perfect images minus `none`, by regime."""
    regimes = [arm.removeprefix("none-") for arm in scores if arm.startswith("none-") and f"vanilla-{arm[5:]}" in scores]
    found = {f"vanilla-{of} - none-{of}": results.paired(scores, f"vanilla-{of}", f"none-{of}") for of in regimes}
    return {name: row for name, row in found.items() if row is not None}
