"""The runs of a study: their configuration, and the tasks that compute them, one process per task.

    python -m benchmarks.studies.cells RECIPE RUN prepare
    python -m benchmarks.studies.cells RECIPE RUN ARM SEED validation|test

Tasks are idempotent: the artifacts and score files of a run show what is done.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml

from adainf.evaluation.find_encoder import find_encoder
from adainf.evaluation.protocol import measure
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.quality.record import Quality
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import Labelled, read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.measure import measure as measure_quality
from adainf.stages.plan import plan
from adainf.stages.pretrain import pretrain
from adainf.stages.verify import verify
from benchmarks.common import commit, machine
from benchmarks.studies import data

Part = Literal["validation", "test"]
"""The split that scores a cell: half of the held-out training images, or the test images, which select nothing."""
FITTED_ON: dict[str, tuple[int, dict[str, Any]]] = {
    "more": (5_000, {}),
    "longer": (5_000, {"generator.steps": 6000, "generator.sampler.steps": 16}),
    "own500-short": (500, {"generator.steps": 500}),
    "own500": (500, {}),
    "own500-long": (500, {"generator.steps": 4500}),
}
"""Sources that a generator draws which several runs share: the number of real images that it is fitted on, and recipe changes.
The first 500 of 5,000 are those of a run with 500 real images; a fit on more than the run's own is privileged."""
IMPORTED = {
    **{source: f"a generator fitted on {images:,} real images" for source, (images, _) in FITTED_ON.items()},
    "perfect": "held-out real images",
    "ghost": "means of two held-out real images",
    "noise": "noise",
}


@dataclass(frozen=True)
class Setup:
    """One run: data, source of the added images, and recipe changes."""

    variant: str
    real_images: int
    source: str
    """`own`: a generator fitted on these real images; else one of `IMPORTED`."""
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    """Recipe settings, by dotted name."""
    label: str = ""
    """Distinguishes runs that differ in `changes`."""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.variant, str(self.real_images), self.source, self.label)))

    @property
    def control_label(self) -> str:
        """Distinguishes runs whose arm `none` differs; that arm does not use the plan."""
        return self.label if self.label.startswith(("crop", "jitter", "weak", "gate", "pilot")) else ""

    def run(self, folder: Path) -> Path:
        return folder / "runs" / self.name

    def write(self, base: dict[str, Any], folder: Path) -> Path:
        """Write the run's recipe, derived from the study's `base`, and return its path."""
        recipe = json.loads(json.dumps(base))
        recipe["name"] = self.name
        recipe["real"] |= {"path": str(folder / "data" / f"{self.variant}-real.npz"), "train_limit_images": self.real_images}
        recipe["plan"]["reference_images"] = self.real_images
        recipe["arms"] = list(self.arms)
        if "verified" not in self.arms:
            recipe["plan"].pop("verify", None)
        recipe["pretrain"]["seeds"] = list(self.seeds)
        # A batch must not hold an image twice, as its copy would be a negative.
        most = self.real_images // 32 * 32
        recipe["pretrain"]["global_batch"] = min(recipe["pretrain"]["global_batch"], most)
        if self.source in IMPORTED:
            trained_on = f"{data.SOURCES[self.variant]}, training images"
            provenance = {"generator": IMPORTED[self.source], "trained_on": trained_on, "used_labels": False}
            images = str(folder / "data" / f"{self.variant}-{self.source}.npz")
            recipe["generator"] = {"kind": "import", "format": "npz", "path": images, "provenance": provenance}
        else:
            recipe["generator"]["batch"] = min(recipe["generator"]["batch"], most)
        for name, value in self.changes.items():
            *sections, last = name.split(".")
            section = recipe
            for key in sections:
                section = section[key]
            section[last] = value
        path = folder / "recipes" / f"{self.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path


def score_file(run: Path, arm: str, seed: int, part: Part) -> Path:
    return run / "cells" / part / arm / f"seed-{seed}.json"


def prepare_run(recipe_file: str, folder: str) -> None:
    """Run the stages before the arms: ingest, fit, generate, measure, plan and verify."""
    recipe, run, quiet = load_recipe(recipe_file), Run(folder), Reporter(quiet=True)
    ingest(recipe, run, quiet)
    fit(recipe, run, quiet)
    generate(recipe, run, quiet)
    if "none" in recipe.arms:
        pretrain(recipe, run, quiet, "none", recipe.pretrain.seeds[0])
    if recipe.measures_quality:
        measure_quality(recipe, run, quiet)
    if recipe.uses_plan:
        plan(recipe, run, quiet)
    if recipe.plan.verify is not None:
        verify(recipe, run, quiet)


def share_controls(run: Path, base: Path) -> None:
    """Copy the artifacts that do not depend on the source of generated images: real images and the encoders of `none`."""
    for name in ("real", "pretrain/none", "cells/validation/none", "cells/test/none"):
        if run != base and (base / name).exists():
            shutil.copytree(base / name, run / name, dirs_exist_ok=True)


def export_images(run: Path, file: Path) -> None:
    """Write a run's generated images as the .npz that other runs import."""
    source = Run(str(run))
    manifest = source.find("generated")
    assert manifest is not None, f"{run} has no generated images"
    data.save(file, image=read_split(ShardFolder.of(source, "generated", manifest), "train").images)


def quality_line(source: str, run: Path) -> str | None:
    """Measured quality of a run's generated images, each score with that of real images; None if not measured."""
    manifest = Run(str(run)).find("quality")
    if manifest is None:
        return None
    scores = manifest.content_as(Quality).scores
    shown = {name: scores[name] for name in ("fd_ssl", "coverage_ssl", "copy_rate") if name in scores}
    return f"{source}: " + ", ".join(f"{name} {one.value:.3g} (real images {one.null:.3g})" for name, one in shown.items())


def make_cell(recipe_file: str, folder: str, arm: str, seed: int, part: Part) -> None:
    """Train and evaluate one encoder: linear probe and nearest neighbours, fitted on the probe's labels."""
    started, cpu = time.monotonic(), time.process_time()
    recipe, run = load_recipe(recipe_file), Run(folder)
    ingest(recipe, run, Reporter(quiet=True))
    pretrain(recipe, run, Reporter(quiet=True), arm, seed)
    trained_s, trained_cpu_s = time.monotonic() - started, time.process_time() - cpu
    prepare(recipe.cpu_threads)
    found_encoder = find_encoder(folder, arm, seed, None)
    splits = _evaluation_splits(data.parts(Path(recipe_file).stem.split("-")[0]), part)
    scores = measure(found_encoder.encoder, splits, recipe.evaluate, seed, default_device())
    found = {
        "linear": scores.first("linear").accuracy,
        "knn": scores.first("knn").accuracy,
        "images": len(splits["test"].labels),
        "encoder_sha256": found_encoder.sha256,
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "train_s": round(trained_s, 2),
        "train_cpu_s": round(trained_cpu_s, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }
    write_score(score_file(Path(folder), arm, seed, part), found)


def write_score(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(found, indent=2) + "\n")
    unfinished.rename(file)


def _evaluation_splits(cut: data.Parts, part: Part) -> dict[str, Labelled]:
    """Train, validation (for the probe's penalty) and test of the probe."""
    images, labels = cut.probe
    if part == "test":
        return {
            "train": Labelled(images[:8000], labels[:8000]),
            "validation": Labelled(images[8000:], labels[8000:]),
            "test": cut.test,
        }
    fifths = [slice(0, 4000), slice(4000, 5000), slice(5000, None)]
    train, validation, test = (Labelled(images[rows], labels[rows]) for rows in fifths)
    return {"train": train, "validation": validation, "test": test}


def main() -> None:
    recipe, run, task, *rest = sys.argv[1:]
    if task == "prepare":
        prepare_run(recipe, run)
    else:
        seed, part = rest
        make_cell(recipe, run, task, int(seed), "test" if part == "test" else "validation")


if __name__ == "__main__":
    main()
