"""The studies of docs/study.md: gate, main block, and the blocks that correspond to the paper's figures.

    python -m benchmarks.study --block gate            # select a regime that can show an effect; scored on validation
    python -m benchmarks.study --block main            # in the regime that the gate selected
    python -m benchmarks.study --block crop,mixing,quality
    python -m benchmarks.study --block gate,main --quick --work /some/folder --output /some/other
    python -m benchmarks.study --study cifar10 --block main,crop          # on a GPU
    python -m benchmarks.study --study cifar10-16px --block pilot,main,weight,crop,longer
    python -m benchmarks.study --study headroom --block pilot,ceiling,recovery

Resumable: each cell (one encoder and its scores) is computed once and stored in a run under --work. After --budget-s seconds no
further cell starts, so 0 writes the results so far. Two processes (--processes) of one thread each. Writes study-NAME.json and
.md to --output; the JSON has the scores of all cells, so that another machine can resume from it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.studies import results
from benchmarks.studies.base import Study, augmented
from benchmarks.studies.cells import Part, Setup
from benchmarks.studies.headroom import Headroom

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
            self.setup(*self.regime, "perfect", ("none",), self.seeds, "weak", augmented(**self.weak)),
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
            real_only: list[tuple[Any, ...]] = [(), ("weak", augmented(**self.weak))]
            controls = [self.setup(*self.regime, "perfect", ("none",), self.seeds, *of) for of in real_only]
            return [*controls, self.setup(*self.regime, "longer", Cifar10.more, self.seeds)], "test"
        return (self.crops_and_jitters(range(3)), "test") if name == "crop" else super().block(name)

    def crops_and_jitters(self, seeds: Sequence[int], prefix: str = "") -> list[Setup]:
        """Each crop with the default and with the weak jitter, without inflation and with perfect images. A label prefix
        separates the runs from the main block's, whose first seed differs."""
        crops = {"crop8": {"min_scale": 0.08}, "": {}, "crop40": {"min_scale": 0.4}}
        jitters = {"": {}, "jitter50": self.weak}
        labels = {prefix + a + b: augmented(**crop, **jitter) for a, crop in crops.items() for b, jitter in jitters.items()}
        return [self.setup(*self.regime, "perfect", ("none", "vanilla"), seeds, *of) for of in labels.items()]

    def verified_comparisons(self, scores: results.Scores) -> list[tuple[str, str]]:
        sources = ("perfect", "more")
        return [(f"verified-{source}", results.better(scores, "none", f"vanilla-{source}")) for source in sources]


STUDIES: dict[str, type[Study]] = {
    "fashion-mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar10-16px": SmallCifar10,
    "headroom": Headroom,
}


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
