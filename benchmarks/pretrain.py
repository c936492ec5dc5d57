"""Our trainer beside a lightly + Lightning trainer and a plain loop over torchvision's PIL transforms.

    python -m benchmarks.pretrain [--quick] [--json FILE] [--only small,resnet18]

Half an hour (a few minutes with --quick) on two cores. Wall time of the whole trainer, data included, on two threads and, for
the peers, two workers of a DataLoader: the sides in turn, each in a fresh process. Keep the machine free of other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import Values
from benchmarks.common import Job, Side, header, installed, median, run, short, spread, table
from benchmarks.data import images
from benchmarks.trainers import SIDES

IMAGES = 10_000
SMALL = {"backbone": {"name": "resnet-small", "stem": "imagenet", "stem_padding": 3}, "batch": 256}
RESNET18 = {"backbone": {"name": "resnet18", "stem": "cifar"}, "batch": 64}
SIZES: dict[str, dict[str, Any]] = {"small": SMALL, "resnet18": RESNET18}
STEPS = {"small": (10, 60), "resnet18": (2, 10)}
"""That do not count, and that do."""
METHODS = ("simclr", "byol")
PRECISIONS = ("no", "bf16")


def main() -> int:
    """The exit code: 1 where a measurement failed."""
    arguments = _arguments()
    sides = [
        Side(name, module, sys.executable, found)
        for name, module in SIDES.items()
        if (found := installed(sys.executable, module.PACKAGE))
    ]
    missing = [name for name in SIDES if name not in [side.name for side in sides]]
    header(sides, missing, arguments.quick)
    figures: dict[str, float] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        _write(Path(scratch))
        for size in arguments.only:
            _measure(size, sides, Path(scratch), arguments.quick, figures, failures)
            if arguments.json:  # each time, so that a run that is ended early leaves what it has found
                Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    if failures:
        print("\nfailed:\n" + "\n".join(f"  {failure}" for failure in failures))
    return int(bool(failures))


def _measure(size: str, sides: list[Side], folder: Path, quick: bool, figures: dict[str, float], failures: list[str]) -> None:
    warm, steps = (count // 2 for count in STEPS[size]) if quick else STEPS[size]
    cases = [(method, precision) for method in METHODS for precision in PRECISIONS]
    found: dict[tuple[str, str, str], list[Values]] = {}
    for _ in range(1 if quick else 3):
        for method, precision in cases:
            for side in sides:
                task = {**SIZES[size], "folder": str(folder), "method": method, "precision": precision}
                job = Job(side.python, side.module.__name__, "train", {**task, "warm_steps": warm, "steps": steps}, {})
                outcome = run(job)
                if isinstance(outcome, str):
                    failures.append(f"{side.name} {size} {method} {precision}: {outcome}")
                else:
                    found.setdefault((method, precision, side.name), []).append(outcome)
    rows = []
    for (method, precision, name), repeats in found.items():
        prefix = f"{size}_{method}_{'fp32' if precision == 'no' else precision}_{name}"
        figures |= {f"{prefix}_{key}": statistics.median(each[key] for each in repeats) for key in repeats[0]}
        images_per_s = median(repeats, "steps_per_s") * SIZES[size]["batch"]
        share = f"{100 * median(repeats, 'non_model_share'):.1f} %"
        rows.append([method, precision, name, spread(repeats, "steps_per_s"), short(images_per_s), share])
    table(f"{size}, batch {SIZES[size]['batch']}", ["method", "precision", "side", "steps/s", "images/s", "non-model"], rows)
    _demands(size, [side.name for side in sides if side.name != "ours"], figures)


def _demands(size: str, peers: list[str], figures: dict[str, float]) -> None:
    """The worst over methods and precisions of our ratio to each peer, and of our own share beside the model."""
    kinds = [f"{size}_{method}_{precision}" for method in METHODS for precision in ("fp32", "bf16")]
    kinds = [kind for kind in kinds if f"{kind}_ours_steps_per_s" in figures]
    ratios = {
        peer: min(
            figures[f"{kind}_ours_steps_per_s"] / figures[f"{kind}_{peer}_steps_per_s"]
            for kind in kinds
            if f"{kind}_{peer}_steps_per_s" in figures
        )
        for peer in peers
        if any(f"{kind}_{peer}_steps_per_s" in figures for kind in kinds)
    }
    if size == "small":
        figures |= {f"small_ratio_{peer}": ratio for peer, ratio in ratios.items()}
    elif ratios:
        figures["resnet18_ratio_best_peer"] = min(ratios.values())
    if kinds:
        figures[f"{size}_non_model_share"] = max(figures[f"{kind}_ours_non_model_share"] for kind in kinds)
    names = [name for name in figures if name.startswith((f"{size}_ratio", f"{size}_non_model"))]
    table(
        f"{size}: the least ratio and the largest share of all cases",
        ["figure", "value"],
        [[n, short(figures[n])] for n in names],
    )


def _write(folder: Path) -> None:
    """The images as an array for the peers, and as a set of shards for us."""
    from adainf.pipeline.artifacts import Run
    from adainf.pipeline.records import Manifest, Request
    from adainf.shards.format.manifest import ShardSet
    from adainf.shards.format.tar import Sample
    from adainf.shards.format.writer import write_split

    pixels = images(IMAGES, 0)
    np.save(folder / "images.npy", pixels)
    run_ = Run(str(folder))
    split = write_split(run_, "set", "train", IMAGES, IMAGES, lambda rows: [Sample(pixels[row], None) for row in rows])
    shards = ShardSet(height_px=32, width_px=32, classes=[], splits={"train": split}, origin={"kind": "synthetic"})
    request = Request(stage="ingest", settings={}, inputs={})
    run_.commit("set", Manifest(request=request, content=shards.model_dump(mode="json")))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of few steps: does it run, and about how fast")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SIZES), help=", ".join(SIZES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
