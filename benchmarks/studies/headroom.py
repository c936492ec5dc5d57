"""The search for a regime with headroom, and how much of it a generator that is fitted on the run's own images recovers.

Headroom is the gain of `adainf` with held-out real images over `none-weak`: the most that inflation can gain. All blocks are
scored on validation; a regime and a setting that they select are confirmed with fresh seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.studies import results
from benchmarks.studies.base import Study, augmented
from benchmarks.studies.cells import Part, Setup

SEEDS = (100, 101, 102)
Regime = tuple[int, int, str]
"""Real images, steps, and a label of `CHANGES`."""
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "crop-only": {"plan.augmentation_rule": "crop_only"},
    "crop40": augmented(min_scale=0.4),
    "wide": {"pretrain.method.projector_hidden": 1024, "pretrain.method.projector_out": 128},
    "resnet18": {"pretrain.backbone.name": "resnet18"},
}
PILOT: Regime = (500, 3000, "")
REGIMES: tuple[Regime, ...] = (
    PILOT,
    *((500, steps, "") for steps in (1000, 6000)),
    *((real, 3000, "") for real in (200, 1000, 2000)),
    *((500, 3000, label) for label in ("crop-only", "crop40", "wide")),
    *((real, 6000, "") for real in (200, 1000, 2000)),
    *((real, 20_000, "") for real in (500, 2000)),
    (500, 1000, "resnet18"),
)
"""In the order in which they are run."""
SHARES = (0.4, 0.2)
"""Of generated images in a batch; the recipe's is 0.6, as that of held-out real images."""


class Headroom(Study):
    name, title = "study-headroom", "Headroom of inflation, CIFAR-10 at 16 x 16 px"
    blocks = ("pilot", "ceiling", "recovery")

    def block(self, name: str) -> tuple[list[Setup], Part]:
        if name == "ceiling":
            return [self._perfect(regime, SEEDS[:2]) for regime in REGIMES], "validation"
        seeds = SEEDS[:1] if name == "pilot" else SEEDS
        own = [self._inflated("own500", seeds), *(self._inflated("own500", seeds, share) for share in SHARES)]
        others = [self._inflated(source, seeds) for source in ("own500-short", "own500-long", "more")]
        return [self._perfect(PILOT, seeds), *own, *others], "validation"

    def _perfect(self, regime: Regime, seeds: Sequence[int]) -> Setup:
        """The control, and inflation by held-out real images."""
        real, steps, label = regime
        named = "-".join(filter(None, (f"steps{steps}", label)))
        changes = {"pretrain.steps": steps, **CHANGES[label]}
        return self.setup("cifar16", real, "perfect", ("none-weak", "adainf"), seeds, named, changes)

    def _inflated(self, source: str, seeds: Sequence[int], share: float | None = None) -> Setup:
        """Inflation by generated images in the pilot's regime."""
        real, steps, _ = PILOT
        label = f"steps{steps}" if share is None else f"steps{steps}-share{100 * share:g}"
        changes = {"pretrain.steps": steps} | ({} if share is None else {"plan.max_generated_share": share})
        return self.setup("cifar16", real, source, ("adainf",), seeds, label, changes)

    def arm_name(self, block: str, setup: Setup, arm: str) -> str:
        """`none-weak-500-steps3000`, `adainf-500-own500-steps3000-share40`."""
        source = () if arm == "none-weak" else (setup.source,)
        return "-".join((arm, str(setup.real_images), *source, setup.label))

    def differences(self, name: str, scores: results.Scores) -> dict[str, Any]:
        """`adainf` minus `none-weak` of the same regime; empty for a single seed."""
        setups, _ = self.block(name)
        found = {}
        for setup in setups:
            arm = self.arm_name(name, setup, "adainf")
            control = self.arm_name(name, setup, "none-weak").partition("-share")[0]
            found[f"{arm} - {control}"] = results.paired(scores, arm, control)
        return {pair: row for pair, row in found.items() if row is not None}
