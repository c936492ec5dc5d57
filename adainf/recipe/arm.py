"""The arms: the encoders that an experiment compares."""

from __future__ import annotations

from typing import Literal

Arm = Literal["none", "none-weak", "vanilla", "reweighted", "weak", "adainf", "verified"]
"""`none`: real images, default augmentation. `none-weak`: real images, the plan's augmentation. `vanilla`: real and generated
images of weight 1, default augmentation. `adainf`: the plan's weights and augmentation. `reweighted`: the plan's weights only.
`weak`: the plan's augmentation only. `verified`: the setting that the probes of `plan.verify` choose."""
REAL_ALONE: tuple[Arm, ...] = ("none", "none-weak")
"""Arms without generated images."""
