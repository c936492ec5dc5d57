"""Augmentation on one core beside its peers, at 32 x 32 pixels.

    python -m benchmarks.augment [--quick] [--json FILE]

Three minutes, half of one with --quick. Every figure is CPU time (user and system) a view, the median of the batches of a
process and then of the processes. Two profiles: the default one without blur, and the whole of the paper's, with
solarisation. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.augmenters import SIDES
from benchmarks.child import Values, cpu_s
from benchmarks.common import Job, Side, header, installed, median, run, short, spread, table

BATCH = 512
SIZE_PX = 32
COLOUR = {
    "min_scale": 0.08,
    "jitter_probability": 0.8,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grayscale_probability": 0.2,
    "blur_probability": 0.0,
    "solarize_probability": 0.0,
    "flip_probability": 0.5,
}
PROFILES = {"colour": COLOUR, "paper": COLOUR | {"blur_probability": 0.5, "solarize_probability": 0.2}}
Key = tuple[str, str, str]
"""Side, variant, profile."""


def main() -> int:
    """The exit code: 1 where a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat: does it run, and about how fast")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    arguments = parser.parse_args()
    found = {name: installed(sys.executable, module.PACKAGE) for name, module in SIDES.items()}
    sides = [Side(name, SIDES[name], sys.executable, version) for name, version in found.items() if version]
    header(sides, [name for name, version in found.items() if not version], arguments.quick)
    print(f"          batches of {BATCH} images of {SIZE_PX} x {SIZE_PX}, each process for {_least_s(arguments.quick)} s")

    taken, failures = _interleaved(sides, arguments.quick)
    rows = []
    for (name, variant, profile), repeats in sorted(taken.items(), key=lambda item: (item[0][2], median(item[1], "cpu_us"))):
        rows.append([profile, name, variant, spread(repeats, "cpu_us"), SIDES[name].VARIANTS[variant]])
    table("CPU µs a view", ["profile", "side", "variant", "µs", "what it does"], rows)
    figures = _figures({key: median(repeats, "cpu_us") for key, repeats in taken.items()})
    table("Demands", ["figure", "value"], [[name, short(figures[name])] for name in DEMANDED if name in figures])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    for failure in failures:
        print(f"failed: {failure}")
    return int(bool(failures))


DEMANDED = ("fast_cpu_us_per_view", "exact_cpu_us_per_view", "paper_profile_ratio_torchvision", "paper_profile_ratio_kornia")


def _least_s(quick: bool) -> float:
    return 2.0 if quick else 3.0


def _interleaved(sides: list[Side], quick: bool) -> tuple[dict[Key, list[Values]], list[str]]:
    """Every side once, then all again, …: what each gave, and why others gave nothing."""
    taken: dict[Key, list[Values]] = {}
    failures: dict[Key, str] = {}
    keys = [(side.name, variant, each) for each in PROFILES for side in sides for variant in side.module.VARIANTS]
    for _ in range(1 if quick else 3):
        for key in keys:
            name, variant, profile = key
            told = {"peer": SIDES[name].__name__, "variant": variant, "profile": profile, "least_s": _least_s(quick)}
            outcome = run(Job(sys.executable, "benchmarks.augment", "measure", told, {}))
            if isinstance(outcome, str):
                failures[key] = f"{' '.join(key)}: {outcome}"
            else:
                taken.setdefault(key, []).append(outcome)
    return taken, list(failures.values())


def _figures(cpu_us: dict[Key, float]) -> dict[str, float]:
    """The raw figures, ours plainly and a peer's with its name before, and what is demanded of ours."""
    figures = {f"{'_'.join(key)}_cpu_us_per_view": value for key, value in cpu_us.items()}
    wanted: dict[str, tuple[Key, Key | None]] = {
        "fast_cpu_us_per_view": (("ours", "yiq", "colour"), None),
        "exact_cpu_us_per_view": (("ours", "exact", "colour"), None),
        "paper_profile_ratio_torchvision": (("torchvision", "pil", "paper"), ("ours", "exact", "paper")),
        "paper_profile_ratio_kornia": (("kornia", "batched", "paper"), ("ours", "exact", "paper")),
    }
    for name, (above, below) in wanted.items():
        if above in cpu_us and (below is None or below in cpu_us):
            figures[name] = cpu_us[above] / (cpu_us[below] if below else 1.0)
    return figures


def measure(peer: str, variant: str, profile: str, least_s: float) -> Values:
    """Median CPU µs a view of a side's batches, for `least_s` seconds at least; a child's task."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    side: Any = importlib.import_module(peer)
    augmenter = side.augmenter(variant, PROFILES[profile], SIZE_PX)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    for step in range(3):
        views = torch.cat(augmenter(images, step))
    if views.shape != (BATCH, 3, SIZE_PX, SIZE_PX) or views.dtype is not torch.float32:
        raise ValueError(f"{peer} gave {views.dtype} of {tuple(views.shape)}")
    times: list[float] = []
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < least_s or len(times) < 3:
        used_s = cpu_s()
        augmenter(images, len(times))
        times.append(cpu_s() - used_s)
    return {"cpu_us": 1e6 * statistics.median(times) / BATCH, "batches": len(times)}


if __name__ == "__main__":
    sys.exit(main())
