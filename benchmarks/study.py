"""The studies of docs/study.md: gate, main block, and the blocks that correspond to the paper's figures.

    python -m benchmarks.study --block gate            # select a regime that can show an effect; scored on validation
    python -m benchmarks.study --block main            # in the regime that the gate selected
    python -m benchmarks.study --block crop,mixing,quality
    python -m benchmarks.study --block gate,main --quick --work /some/folder --output /some/other
    python -m benchmarks.study --study cifar10 --block main,crop          # on a GPU
    python -m benchmarks.study --study cifar10-16px --block pilot,main,weight,crop,longer

Resumable: each cell (one encoder and its scores) is computed once and stored in a run under --work. After --budget-s seconds no
further cell starts. Two processes (--processes) of one thread each. Writes study-NAME.json and .md to --output; the JSON has
the scores of all cells, so that another machine can resume from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
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
    PRIVILEGED,
    PRIVILEGED_IMAGES,
    Part,
    Setup,
    export_images,
    quality_line,
    score_file,
    share_controls,
    write_score,
)

REGIMES = (
    *(("hard", 500), ("hard", 100), ("hard", 2_000), ("hard", 5_000)),
    *(("plain", 500), ("plain", 100), ("plain", 2_000), ("plain", 5_000)),
)
"""In the order of the gate."""
CROPS, JITTERS, SHARES, PROBES = (0.04, 0.1, 0.35, 0.6), (0.25, 0.5), (0.75, 0.45, 0.3), 0.25
"""Around the recipe's 0.2, 1 and 0.6; the recipe's probes take 0.1 of the steps."""
GATE_SEEDS = (100, 101, 102)
"""Used by no other block: the selected regime must be confirmed with fresh seeds."""
ABLATION = ("none", "vanilla", "reweighted", "weak", "adainf", "verified")
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
        self.until = time.monotonic() + arguments.budget_s if arguments.budget_s else float("inf")
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
            overrides |= QUICK | (QUICK_GENERATOR if source in ("own", "fit") else {})
            overrides |= {"plan.verify.deciding_seeds": 2} if "verified" in arms else {}
            seeds = seeds[:2]
        return Setup(variant, real, source, tuple(arms), tuple(seeds), overrides, label)

    def block(self, name: str) -> tuple[list[Setup], Part]:
        """The runs of a block, and the split that scores their cells."""
        raise NotImplementedError

    def primary(self, scores: results.Scores) -> list[dict[str, Any]]:
        """The primary comparisons of the main block; empty while an arm has fewer than two seeds."""
        raise NotImplementedError

    def one_factor_sweep(self, variant: str, real: int, crops: Sequence[float], jitters: Sequence[float]) -> list[Setup]:
        """One-factor-at-a-time sweep of the default augmentation's crop and jitter, and the recipe's own setting."""
        labels = {f"crop{100 * scale:g}": _augmented(min_scale=scale) for scale in crops}
        labels |= {f"jitter{100 * by:g}": _augmented(jitter_strength=by) for by in jitters}
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
            for arm, seed, file in _files(name, setups, part, self.work):
                score = block["scores"].get(arm, {}).get(str(seed))
                if score and not file.exists():
                    write_score(file, score)

    def _phases(self, setups: Sequence[Setup], part: Part) -> Iterator[list[Command]]:
        """Phases of independent tasks, without those that are done."""
        fitted: dict[Path, Setup] = {}  # runs whose images others import, by image file
        for setup in setups:
            file = self.work / "data" / f"{setup.variant}-{setup.source}.npz"
            if setup.source in PRIVILEGED and not file.exists():
                named = setup.source, PRIVILEGED[setup.source]
                fitted[file] = self.setup(setup.variant, PRIVILEGED_IMAGES, "fit", ("vanilla",), range(1), *named)
        controls: dict[tuple[str, int, str], Setup] = {}
        for setup in setups:
            # Arm none does not depend on the source, so it is trained in one run and copied to the others.
            controls.setdefault((setup.variant, setup.real_images, setup.control_label), setup)
        fits = [task for setup in fitted.values() for task in self._prepared(setup)]
        yield fits + self._cells([(setup, ("none",)) for setup in controls.values()], part)
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
        files = list(_files(name, setups, part, self.work))
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
            "differences": _gate_differences(scores) if name == "gate" else results.differences(scores),
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


class FashionMnist(Study):
    name, title = "study-fashion-mnist", "Fashion-MNIST at 16 x 16"
    blocks = ("gate", "main", "crop", "mixing", "quality", "verify")
    crops_compared = (0.04, 0.35)

    def block(self, name: str) -> tuple[list[Setup], Part]:
        if name == "gate":
            regimes = REGIMES[:2] if self.quick else REGIMES
            arms = ("none", "vanilla")
            return [self.setup(*regime, "perfect", arms, GATE_SEEDS, "gate") for regime in regimes], "validation"
        variant, real = self.regime
        if name == "main":
            return [self.setup(variant, real, source, ABLATION, range(6)) for source in ("perfect", "own", "more")], "test"
        if name == "quality":
            sources = ("perfect", "more", "own", "ghost", "noise")
            return [self.setup(variant, real, source, ("none", "vanilla"), range(3)) for source in sources], "test"
        if name == "mixing":
            labels = {f"share{100 * share:g}": {"plan.max_generated_share": share} for share in SHARES}
            return [self.setup(variant, real, "more", ("none", "adainf"), range(3), *of) for of in labels.items()], "test"
        if name == "verify":
            label, longer = f"budget{100 * PROBES:g}", {"plan.verify.budget": PROBES}
            controls = self.setup(variant, real, "more", ("none",), range(6))  # shared with the main block
            return [controls, self.setup(variant, real, "more", ("none", "verified"), range(6), label, longer)], "test"
        return self.one_factor_sweep(variant, real, CROPS, JITTERS), "test"

    @property
    def regime(self) -> tuple[str, int]:
        """The regime that the gate selected. Exits if there is none, as no other block is meaningful then."""
        chosen = self.found["blocks"].get("gate", {}).get("regime")
        if chosen is None and self.quick:
            return REGIMES[0]
        if chosen is None:
            sys.exit("study: the gate has selected no regime; run --block gate, and if none passes, report that")
        return chosen[0], int(chosen[1])

    def primary(self, scores: results.Scores) -> list[dict[str, Any]]:
        control = results.better(scores, "none", "vanilla-more")
        adainf = [("vanilla-more", "none"), ("adainf-more", "vanilla-more"), ("adainf-more", "none")]
        return results.tested(scores, [*adainf, ("verified-more", control)])


class Cifar10(Study):
    name, title = "study-cifar10", "CIFAR-10 at a hundredth"
    blocks: tuple[str, ...] = ("main", "crop")
    crops_compared = (0.02, 0.2)
    regime, seeds = ("cifar", 500), range(5)
    perfect: tuple[str, ...] = ("none", "vanilla", "weak", "adainf")
    more: tuple[str, ...] = ("none", "vanilla", "adainf")
    """Arms of the main block with images of that source."""
    weak: Mapping[str, float] = {"min_scale": 0.2, "jitter_probability": 0.4, "jitter_strength": 0.5}
    """The plan's augmentation for effective data of at least 21 times the reference."""

    def block(self, name: str) -> tuple[list[Setup], Part]:
        if name == "crop":
            return self.one_factor_sweep(*self.regime, (0.02, 0.2, 0.4), (0.5,)), "test"
        return [
            self.setup(*self.regime, "perfect", self.perfect, self.seeds),
            self.setup(*self.regime, "more", self.more, self.seeds),
            self.setup(*self.regime, "perfect", ("none",), self.seeds, "weak", _augmented(**self.weak)),
        ], "test"

    def primary(self, scores: results.Scores) -> list[dict[str, Any]]:
        pairs = ("weak-perfect", "vanilla-perfect"), ("none-weak", "none")
        inflated, real_only = (f"({arm} - {other})" for arm, other in pairs)
        gains = {name: results.gain(scores, *pair) for name, pair in zip((inflated, real_only), pairs, strict=True)}
        adainf = [(f"adainf-{source}", other) for source in ("perfect", "more") for other in (f"vanilla-{source}", "none")]
        return results.tested({**scores, **gains}, [(inflated, real_only), *adainf, *self.verified_comparisons(scores)])

    def verified_comparisons(self, scores: results.Scores) -> list[tuple[str, str]]:
        """Primary comparisons of arm `verified`."""
        return []


class SmallCifar10(Cifar10):
    name, title = "study-cifar10-16px", "CIFAR-10 at 16 x 16 px"
    blocks = ("pilot", "main", "weight", "crop", "longer")
    crops_compared = (0.08, 0.4)
    regime, seeds = ("cifar16", 200), range(8)
    perfect, more = (*Cifar10.perfect, "verified"), (*Cifar10.more, "verified")
    weak: Mapping[str, float] = {"jitter_probability": 0.4, "jitter_strength": 0.5}  # the crop is 0.2 already

    def block(self, name: str) -> tuple[list[Setup], Part]:
        if name == "pilot":
            return self.crops_and_jitters((100,), "pilot"), "validation"
        if name == "weight":  # each half of the plan, next to the main block's arms
            return [self.setup(*self.regime, "more", (*self.more, "reweighted", "weak"), self.seeds)], "test"
        if name == "longer":  # a better generator than `more`, next to the main block's controls
            real_only: list[tuple[Any, ...]] = [(), ("weak", _augmented(**self.weak))]
            controls = [self.setup(*self.regime, "perfect", ("none",), self.seeds, *of) for of in real_only]
            return [*controls, self.setup(*self.regime, "longer", Cifar10.more, self.seeds)], "test"
        return (self.crops_and_jitters(range(3)), "test") if name == "crop" else super().block(name)

    def crops_and_jitters(self, seeds: Sequence[int], prefix: str = "") -> list[Setup]:
        """Each crop with the default and with the weak jitter, without inflation and with perfect images. A label prefix
        separates the runs from the main block's, whose first seed differs."""
        crops = {"crop8": {"min_scale": 0.08}, "": {}, "crop40": {"min_scale": 0.4}}
        jitters = {"": {}, "jitter50": self.weak}
        labels = {prefix + a + b: _augmented(**crop, **jitter) for a, crop in crops.items() for b, jitter in jitters.items()}
        return [self.setup(*self.regime, "perfect", ("none", "vanilla"), seeds, *of) for of in labels.items()]

    def verified_comparisons(self, scores: results.Scores) -> list[tuple[str, str]]:
        sources = ("perfect", "more")
        return [(f"verified-{source}", results.better(scores, "none", f"vanilla-{source}")) for source in sources]


def _augmented(**settings: float) -> dict[str, float]:
    """Changes of the recipe's default augmentation."""
    return {f"pretrain.augmentation.{name}": value for name, value in settings.items()}


def _files(block: str, setups: Sequence[Setup], part: Part, work: Path) -> Iterator[tuple[str, int, Path]]:
    """For each cell of a block: the arm's name in the results, the seed, and the score file."""
    for setup in setups:
        for arm in setup.arms:
            for seed in setup.seeds:
                yield _arm_name(block, setup, arm), seed, score_file(setup.run(work), arm, seed, part)


def _arm_name(block: str, setup: Setup, arm: str) -> str:
    """`none`, `vanilla-own`, `vanilla-perfect-crop10` (percent); in the gate with the regime."""
    if block == "gate":
        return f"{arm}-{setup.variant}-{setup.real_images}"
    parts = (arm, setup.control_label) if arm == "none" else (arm, setup.source, setup.label)
    return "-".join(filter(None, parts))


def _gate_differences(scores: results.Scores) -> dict[str, Any]:
    """`vanilla` with perfect images minus `none`, by regime."""
    regimes = [arm.removeprefix("none-") for arm in scores if arm.startswith("none-") and f"vanilla-{arm[5:]}" in scores]
    found = {f"vanilla-{of} - none-{of}": results.paired(scores, f"vanilla-{of}", f"none-{of}") for of in regimes}
    return {name: row for name, row in found.items() if row is not None}


STUDIES: dict[str, type[Study]] = {"fashion-mnist": FashionMnist, "cifar10": Cifar10, "cifar10-16px": SmallCifar10}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--study", default="fashion-mnist", choices=STUDIES)
    parser.add_argument("--block", default="main", help="blocks of the study, separated by commas")
    parser.add_argument("--processes", type=int, default=2, help="number of concurrent cells")
    parser.add_argument("--budget-s", type=float, help="start no further cell after this many seconds")
    parser.add_argument("--quick", action="store_true", help="smoke test: every part with tiny numbers")
    parser.add_argument("--work", default="runs/study", help="folder of data, runs and cells")
    parser.add_argument("--output", default="docs/results")
    arguments = parser.parse_args()
    blocks = arguments.block.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, which terminates the cells
    study = STUDIES[arguments.study](arguments)
    unknown = [block for block in blocks if block not in study.blocks]
    if unknown:
        parser.error(f"invalid --block {unknown[0]!r}: expected one of {', '.join(study.blocks)}")
    for block in blocks:
        study.run(block)


if __name__ == "__main__":
    main()
