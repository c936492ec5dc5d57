"""What the measured quality makes of poor generators of CIFAR-10, beside held-out real images, blends and noise.

    python -m benchmarks.studies.cifar datasets/cifar10
    python -m benchmarks.poor_generators [--steps 250,1000] [--work runs/poor-generators]

Diffusion models fitted on 5,000 images for so few steps of 128; everything else by `recipes/study-cifar10.yaml` with its
smallest network. Prints coverage and total variation on features of the run's `none` encoder, and the q that either alone
makes. Resumable; some 20 CPU minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from adainf.inflation.quality_score import Measured, quality_score
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.quality.record import Quality
from adainf.recipe import Recipe
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.measure import measure
from adainf.stages.pretrain import pretrain
from benchmarks.common import ROOT, header, table
from benchmarks.studies import data
from benchmarks.studies.cells import export_images

IMAGES, FITTED_ON, BATCH = 2_000, 5_000, 128
REPORTER = Reporter(quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.poor_generators", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", default="250,1000")
    parser.add_argument("--work", default="runs/poor-generators", type=Path)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    header([], [], quick=True)
    data.write("cifar", work / "data")
    files = {name: work / "data" / f"cifar-{name}.npz" for name in ("perfect", "ghost", "noise")}
    for steps in arguments.steps.split(","):
        files[f"steps-{steps}"] = _fitted(work, int(steps))
    columns = ["images", "coverage", "of real ones", "TV", "of real ones", "q by coverage", "q by TV"]
    table("500 images a side", columns, _judged(work, files))


def _fitted(work: Path, steps: int) -> Path:
    """Images of a generator that was fitted in so many steps."""
    file = work / "data" / f"steps-{steps}.npz"
    if not file.exists():
        recipe, run = _recipe(work, f"steps-{steps}", {"arms": ["vanilla"]}, steps), Run(str(work / f"steps-{steps}"))
        for stage in (ingest, fit, generate):
            stage(recipe, run, REPORTER)
        export_images(work / f"steps-{steps}", file)
    return file


def _judged(work: Path, files: dict[str, Path]) -> list[list[str]]:
    said = {"generator": "see the file's name", "trained_on": "CIFAR-10, training images", "used_labels": False}
    sources = {
        name: {"generator": {"kind": "import", "format": "npz", "path": str(file), "provenance": said}}
        for name, file in files.items()
    }
    recipe, run = _recipe(work, "judge", {"generators": sources}), Run(str(work / "judge"))
    ingest(recipe, run, REPORTER)
    generate(recipe, run, REPORTER)
    pretrain(recipe, run, REPORTER, "none", 0)
    measure(recipe, run, REPORTER)
    rows = []
    for name in files:
        manifest = run.find(f"quality/{name}")
        assert manifest is not None
        known = Measured.of(manifest.content_as(Quality))
        coverage = {"coverage": known.coverage, "coverage_null": known.coverage_null}
        apart = {"total_variation": known.total_variation, "total_variation_null": known.total_variation_null}
        alone = [quality_score(Measured.model_validate(one)) for one in (coverage, apart)]
        numbers = [*coverage.values(), *apart.values(), *(found[0] for found in alone if found)]
        rows.append([name, *(f"{number:.2f}" for number in numbers if number is not None)])
    return rows


def _recipe(work: Path, name: str, changes: dict[str, Any], steps: int = 0) -> Recipe:
    """The study's, for two CPU cores: with `steps` one that fits a generator, else one that judges."""
    recipe = yaml.safe_load((ROOT / "recipes/study-cifar10.yaml").read_text())
    recipe["real"]["path"] = str(work / "data/cifar-real.npz")
    recipe["generate"]["images"] = IMAGES
    recipe["pretrain"] |= {"backbone": {"name": "resnet-small"}, "steps": 300, "global_batch": BATCH, "seeds": [0]}
    recipe["pretrain"]["method"] |= {"projector_hidden": 256, "projector_out": 64}
    if steps:
        recipe["real"]["train_limit_images"] = FITTED_ON
        recipe["generator"] |= {"steps": steps, "batch": BATCH, "learning_rate": 1e-3, "ema_half_life_images": 20_000}
        recipe["generator"]["unet"]["channels"] = 32
        recipe["generator"]["sampler"]["steps"] = 10
    else:
        del recipe["generator"]
    file = work / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe | changes))
    return load_recipe(str(file))


if __name__ == "__main__":
    main()
