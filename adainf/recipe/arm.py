"""What is compared: the arms."""

from __future__ import annotations

from typing import Literal

Arm = Literal["none", "none-weak", "vanilla", "reweighted", "weak", "adainf", "verified"]
"""`none`: real images only; `none-weak`: with the plan's augmentation. `vanilla`: real and generated, weight 1 each. `adainf`:
as the plan says. Half of the plan each: `reweighted`, its weight with the default augmentation, and `weak`, its augmentation
with weight 1. `verified`: as probes around the plan choose."""
REAL_ALONE: tuple[Arm, ...] = ("none", "none-weak")
"""Arms without generated images."""
