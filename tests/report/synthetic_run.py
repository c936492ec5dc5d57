"""A small synthetic run on disk: every artifact that the report reads, with values that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adainf.augment.profiles import default_views
from adainf.evaluation.scores import ArmScores, InfoNceGap, Measure, SeedScores
from adainf.inflation.policy import make_plan
from adainf.inflation.quality_score import Measured
from adainf.inflation.record import InflationPlan, Inputs, SourceStats
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, evaluated, pretrained, request
from adainf.pipeline.records import Manifest, Output
from adainf.quality.record import Estimate, Network, Quality, Score, ShardScores
from adainf.recipe import Arm, Recipe
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import encode_stored_png
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import write_split

IMPORT: dict[str, Any] = {
    "kind": "import",
    "format": "npz",
    "path": "/somewhere/else/images.npz",
    "provenance": {"generator": "STF", "trained_on": "CIFAR-10 train", "used_labels": False, "source": "a disk"},
}
EDM: dict[str, Any] = {"kind": "diffusion", "steps": 300}


@dataclass
class Made:
    """Parameters of a synthetic run; a test overrides what it is about."""

    linear: dict[str, list[float]] = field(
        default_factory=lambda: {"none": [0.90], "vanilla": [0.88], "adainf": [0.95], "untrained": [0.80]}
    )
    """By arm, one accuracy per seed."""
    generator: dict[str, Any] = field(default_factory=lambda: dict(EDM))
    classes: list[str] = field(default_factory=lambda: ["zero", "one"])
    labelled: bool = True
    one_class: bool = False
    """Only in the scores: no probe, although train and test have labels."""
    test_images: int = 400
    image_px: int = 8
    images: int = 70
    shard_images: int = 40
    augmentation: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] | None = field(default_factory=dict)
    """The section of the recipe; None disables the measurement."""
    fitted_with_labels: bool = False
    image: Callable[[str, int], np.ndarray[Any, np.dtype[np.uint8]]] | None = None
    """(source, index) → image; None gives noise."""

    @property
    def arms(self) -> list[str]:
        return [arm for arm in self.linear if arm != "untrained"]

    @property
    def recipe(self) -> Recipe:
        data = {
            "name": "toy",
            "real": {"kind": "npz", "path": "/data/of/this/machine.npz"},
            "generator": self.generator,
            "generate": {"images": self.images},
            "plan": self.plan,
            "quality": self.quality,
            "arms": self.arms,
            "pretrain": {
                "seeds": list(range(len(self.linear["untrained"]))),
                "steps": 100,
                "global_batch": 32,
                "augmentation": self.augmentation,
            },
        }
        return Recipe.model_validate(data)


def write_run(made: Made, folder: Path) -> Run:
    """Write all artifacts that the report of `made.recipe` reads."""
    run, recipe = Run(str(folder)), made.recipe
    real = _shards(run, made, "real", ("train", "validation", "test"), {"kind": "npz"}, made.classes)
    if recipe.uses_generated:
        origin = _generator(run, made, real)
        _shards(run, made, "generated", ("train",), origin, [])
    views = default_views(recipe.pretrain.augmentation)

    def train(arm: Arm, plan: InflationPlan) -> None:
        for seed in recipe.pretrain.seeds:
            _commit(run, recipe, pretrained(arm, seed), _trained(recipe, arm, seed, plan))

    def plan_of(measured: Measured | None) -> InflationPlan:
        sources = {"generated": SourceStats(images=made.images, measured=measured)}
        return make_plan(Inputs(real_images=made.images, sources=sources, reference_images=50_000), recipe.plan, views)

    if "none" in made.arms:
        train("none", plan_of(None))
    plan = plan_of(Measured.of(_quality(run, made)) if recipe.measures_quality else None)
    if "adainf" in made.arms:
        _commit(run, recipe, "plan", plan.model_dump(mode="json"))
    for arm in recipe.arms:
        if arm != "none":
            train(arm, plan)
    for judged, accuracies in made.linear.items():
        _commit(run, recipe, evaluated(judged), _scores(made, judged, accuracies).model_dump(mode="json"))
    return run


def _commit(run: Run, recipe: Recipe, name: str, content: dict[str, Any], outputs: Sequence[Output] = ()) -> Manifest:
    inputs = {before: run.find(before) for before in build_graph(recipe)[name].inputs}
    found = {before: manifest for before, manifest in inputs.items() if manifest}
    return run.commit(name, Manifest(request=request(recipe, name, found), content=content, outputs=list(outputs)))


def _shards(run: Run, made: Made, name: str, splits: tuple[str, ...], origin: Any, classes: list[str]) -> Manifest:
    labelled = made.labelled and name == "real"

    def sample(index: int) -> Sample:
        # Depends only on the index: the shard size must not change the images.
        noise = np.random.default_rng([index, name == "real"]).integers(0, 256, (made.image_px, made.image_px, 3), np.uint8)
        return Sample(made.image(name, index) if made.image else noise, index % 2 if labelled else None)

    written = {
        split: write_split(run, name, split, made.images, made.shard_images, lambda indices: [sample(i) for i in indices])
        for split in splits
    }
    shards = ShardSet(
        height_px=made.image_px, width_px=made.image_px, classes=classes if labelled else [], splits=written, origin=origin
    )
    return _commit(run, made.recipe, name, shards.model_dump(mode="json"))


def _generator(run: Run, made: Made, real: Manifest) -> dict[str, Any]:
    """Write the generator's artifact if the run fits one. Returns the origin of the generated images."""
    if made.generator["kind"] == "import":
        return {**made.generator["provenance"], "kind": "import", "channel_order_in_file": "RGB"}
    steps = made.generator["steps"]
    content = {
        "kind": "diffusion",
        "trained_on": real.digest,
        "used_labels": made.fitted_with_labels,
        "sigma_data": 0.31,
        "steps": steps,
        "images_seen": 128 * steps,
        "curve": [[step, 0.2 + 0.8 * 0.99**step] for step in range(10, steps + 1, 10)],
    }
    manifest = _commit(run, made.recipe, "generator", content)
    return {"kind": "diffusion", "generator": manifest.digest, "trained_on": real.digest}


SPACES = {"rand": 128, "ssl": 512}
"""Space → number of features."""
BY_SPACE = ("fd", "kd", "precision", "recall", "density", "coverage", "classifier", "total_variation", "authenticity")
PIXELS = ("copy_rate", "authenticity_pixels", "exact_copy_rate", "duplicate_rate", "held_out_copied")
AS_REAL = ("coverage_ssl", "authenticity_pixels")
"""The metrics that the plan uses equal those of real images, so that it rejects nothing."""


def _quality(run: Run, made: Made) -> Quality:
    """Every score is 0.25, and 0.75 for real images; kernel distances are -0.5 with an interval; sheets have 8 black pairs."""
    names = [*PIXELS, *(f"{metric}_{space}" for space in SPACES for metric in BY_SPACE)]
    scores = {name: Score.of(Estimate(-0.5, -0.6, 0.1) if "kd" in name else Estimate(0.25), 0.75) for name in names}
    scores["held_out_copied"] = Score.of(Estimate(0.0), 0.0)
    scores |= dict.fromkeys(AS_REAL, Score.of(Estimate(0.75), 0.75))
    shards = len(range(0, made.images, made.shard_images))
    columns = {space: [0.5 + number for number in range(shards)] for space in SPACES}
    halves = {space: [(number, number) for number in column] for space, column in columns.items()}
    quality = Quality(
        images=64,
        neighbours=5,
        training_images=made.images,
        generated_images=made.images,
        spaces={space: Network(sha256="0" * 64, features=width) for space, width in SPACES.items()},
        scores=scores,
        shards=ShardScores(images=[made.shard_images] * shards, fd=columns, coverage=columns, coverage_halves=halves),
        warnings=["generated images are made up"],
    )
    sheet = encode_stored_png(np.zeros((2 * made.image_px, 8 * made.image_px, 3), np.uint8))
    outputs = [run.write(f"quality/{name}.png", sheet) for name in ("best", "worst")]
    _commit(run, made.recipe, "quality", quality.model_dump(mode="json"), outputs)
    return quality


def _trained(recipe: Recipe, arm: str, seed: int, plan: InflationPlan) -> dict[str, Any]:
    views = plan.views if arm == "adainf" else default_views(recipe.pretrain.augmentation)
    weight = plan.real_weight if arm == "adainf" else 1.0
    share = {"none": 0.0, "vanilla": 0.5, "adainf": plan.generated_share}[arm]
    drawn = recipe.pretrain.steps * recipe.pretrain.global_batch
    rate = {"none": 0.97, "vanilla": 0.975, "adainf": 0.965}[arm]
    return {
        "arm": arm,
        "seed": seed,
        "steps": recipe.pretrain.steps,
        "global_batch": recipe.pretrain.global_batch,
        "curve": [[step, 2.0 + (2.1 - 0.02 * seed) * rate**step] for step in range(5, recipe.pretrain.steps + 1, 5)],
        "generated_share": share,
        "shares": {"real": 1 - share, "generated": share},
        "real_weight": weight,
        "passes_per_real_image": round(drawn * (1 - share) / plan.inputs.real_images, 4),
        "passes_per_generated_image": round(drawn * share / plan.inputs.generated_images, 4),
        "views": [view.model_dump(mode="json") for view in views],
    }


def _scores(made: Made, arm: str, accuracies: list[float]) -> ArmScores:
    def of_seed(seed: int, accuracy: float) -> SeedScores:
        linear = Measure.of("linear", hits(accuracy), seed, {"solver": "lbfgs"}, {"l2": 1e-3})
        knn = Measure.of("knn", hits(accuracy - 0.03), seed, {"neighbours": 20})
        weighted = [
            Measure.of("knn-weighted", hits(accuracy - k / 5000), seed, {"neighbours": k, "temperature": 0.1})
            for k in (20, 200)
        ]
        return SeedScores(measures=[linear, knn, *weighted])

    def hits(accuracy: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Every arm classifies the same images first, so that the arms differ in as few images as possible."""
        return np.arange(made.test_images) < round(accuracy * made.test_images)

    test_images = made.test_images if made.labelled else 0
    probed = test_images > 0 and not made.one_class
    seeds = {str(seed): of_seed(seed, accuracy) for seed, accuracy in enumerate(accuracies) if probed}
    gaps = {str(seed): _gap(accuracy) for seed, accuracy in enumerate(accuracies)}
    return ArmScores(arm=arm, test_images=test_images, chance=0.10 if probed else 0.0, seeds=seeds, infonce=gaps)


def _gap(accuracy: float) -> InfoNceGap:
    """The gap in nats is the accuracy minus 0.5; half of its interval is 0.05."""
    gap = round(accuracy - 0.5, 6)
    interval = (round(gap - 0.05, 6), round(gap + 0.05, 6))
    return InfoNceGap(images=64, batch=64, temperature=0.2, train=3.0, held_out=3 + gap, gap=gap, interval=interval)
