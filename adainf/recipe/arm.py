"""The arms: the encoders that an experiment compares."""

from __future__ import annotations

from typing import Literal

Arm = Literal[
    "none",
    "none-weak",
    "vanilla",
    "reweighted",
    "weak",
    "adainf",
    "verified",
    "positives",
    "adainf-positives",
    "third-view",
    "random-positives",
]
"""`none`: real images, default augmentation. `none-weak`: real images, the plan's augmentation. `vanilla`: real and generated
images of weight 1, default augmentation. `adainf`: the plan's weights and augmentation. `reweighted`: the plan's weights only.
`weak`: the plan's augmentation only. `verified`: the setting that the probes of `plan.verify` choose. `positives`: `none-weak`
with generated positives. `adainf-positives`: `adainf` with generated positives. Their controls: `third-view`, a third view
of the real image; `random-positives`, candidates of another image."""
REAL_ALONE: tuple[Arm, ...] = ("none", "none-weak", "positives", "third-view", "random-positives")
"""Arms whose anchors are real images only."""
WITH_CANDIDATES: tuple[Arm, ...] = ("positives", "adainf-positives", "random-positives")
"""Arms whose real images have candidates, the generated positives."""
