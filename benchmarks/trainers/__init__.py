"""We and two peers as trainers, one small file each: the same backbone, batch, precision, images and operations on each side.

``PACKAGE``      the distribution whose version is printed; not installed: the side is left out
``train(...)``   see `Task`: some steps that do not count, then some that do; values are shares of wall time and steps/s
"""

from __future__ import annotations

from types import ModuleType

from benchmarks.trainers import lightly, ours, pil_loader

SIDES: dict[str, ModuleType] = {"ours": ours, "lightly": lightly, "pil_loader": pil_loader}
