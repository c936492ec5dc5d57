"""The content of the report, collected from the manifests of a run as one typed object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, JsonValue

from adainf.augment.profiles import Profile
from adainf.evaluation.accuracy import Accuracy
from adainf.evaluation.scores import ArmScores, Protocol
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import VerifyResult
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import UNTRAINED, build_graph, evaluated, fitted, generated, measured, pretrained, require
from adainf.pipeline.records import Manifest
from adainf.quality.record import Quality
from adainf.recipe import FittedGenerator, GeneratedSource, Recipe
from adainf.report.comparison import NO_LABELS, NO_TEST_LABELS, ONE_CLASS, Conclusion, conclude
from adainf.report.overfitting import overfitting
from adainf.shards.format.manifest import ShardSet

CHANCE = "chance"

Curve = list[tuple[int, float]]
"""(step, loss)."""


class _Content(BaseModel):
    # A field that a later version adds to a manifest must not break the report.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Fitted(_Content):
    """The fields of ``generator/`` that the report reads, for a generator fitted in the run."""

    kind: str
    steps: int
    images_seen: int
    curve: Curve = []
    used_labels: bool = False


class Trained(_Content):
    """The fields of ``pretrain/ARM/seed-S/`` that the report reads."""

    arm: str
    seed: int
    steps: int
    global_batch: int
    curve: Curve = []
    generated_share: float
    shares: dict[str, float]
    """Share of the batch by source, including the real images."""
    real_weight: float
    passes_per_real_image: float
    passes_per_generated_image: float
    views: tuple[Profile, Profile]


@dataclass(frozen=True)
class Row:
    """One line of the results table."""

    name: str
    """An arm, `untrained` or `chance`."""
    linear: Accuracy | None
    knn: Accuracy | None
    difference: float | None
    """Linear-probe accuracy minus that of `none`, -1..1; None for `none` itself, and where nothing can be compared."""
    trained: Trained | None
    """The first seed; the fields that the page shows are equal for all seeds."""


@dataclass(frozen=True)
class SourceSummary:
    """One source of generated images."""

    source: GeneratedSource
    images: ShardSet
    fitted: Fitted | None
    quality: Quality | None

    @property
    def used_labels(self) -> bool:
        """Whether its images depend on labels, which the method must not use."""
        return bool(self.fitted and self.fitted.used_labels) or bool(self.images.origin.get("used_labels", False))

    @property
    def other_images(self) -> bool:
        """Whether its images depend on images other than the run's real ones; see `GeneratorManifest.foreign`."""
        foreign = self.images.origin.get("foreign", [])
        return isinstance(foreign, list) and "trained_on" in foreign


@dataclass(frozen=True)
class Summary:
    """One run, as the report shows it."""

    recipe: Recipe
    manifests: dict[str, Manifest]
    """By name: every artifact that was read, in the order of the pipeline graph."""
    real: ShardSet
    sources: list[SourceSummary]
    """Sorted by name; empty if no arm trains on generated images."""
    plan: InflationPlan | None
    verified: VerifyResult | None
    trained: dict[str, list[Trained]]
    """By arm, one for each seed."""
    test_images: int
    chance: float | None
    """Accuracy of always predicting the most common training label; None without a probe."""
    no_probe_reason: str | None
    """Why no encoder was probed, as an object of "The data have ..."; None with a probe."""
    scores: dict[str, ArmScores]
    """By arm, including `untrained`: every measure. The rows have only two of them."""
    rows: list[Row]
    """The recipe's arms in its order, then `untrained` and `chance`."""
    conclusion: Conclusion
    linked: dict[str, str]
    """Arm → the first arm that has the same encoders, byte for byte."""
    used_labels: bool
    """Whether any generated images depend on labels, which the method must not use."""
    other_images: bool
    """Whether any generated images depend on images other than the run's real ones."""

    @property
    def seeds(self) -> int:
        return len(self.recipe.pretrain.seeds)


def collect(recipe: Recipe, run: Run) -> Summary:
    """Read the manifests of a finished run. Raises `BadInput` as `graph.require` does."""
    manifests = require(recipe, run, build_graph(recipe))
    real = manifests["real"].content_as(ShardSet)
    sources = [_source_summary(source, manifests) for source in recipe.sources.values()] if recipe.uses_generated else []
    trained: dict[str, list[Trained]] = {
        arm: [manifests[pretrained(arm, s)].content_as(Trained) for s in recipe.pretrain.seeds] for arm in recipe.arms
    }
    evaluated_arms = (*recipe.arms, UNTRAINED)
    scores = {name: manifests[evaluated(name)].content_as(ArmScores) for name in evaluated_arms}
    linear, knn = _by_seed(scores, "linear"), _by_seed(scores, "knn")
    first = scores[recipe.arms[0]]
    chance = first.chance if linear else None
    no_probe_reason = _no_probe_reason(real, first.test_images)
    used_labels, other_images = any(one.used_labels for one in sources), any(one.other_images for one in sources)
    linked = _linked(recipe, manifests)
    conclusion = conclude(linear, recipe.arms, first.test_images, used_labels, no_probe_reason, other_images)
    return Summary(
        recipe=recipe,
        manifests=manifests,
        real=real,
        sources=sources,
        plan=manifests["plan"].content_as(InflationPlan) if "plan" in manifests else None,
        verified=manifests["verify"].content_as(VerifyResult) if "verify" in manifests else None,
        trained=trained,
        test_images=first.test_images,
        chance=chance,
        no_probe_reason=None if linear else no_probe_reason,
        scores=scores,
        rows=_rows(recipe, linear, knn, trained, chance),
        conclusion=replace(conclusion, notes=(*conclusion.notes, *map(linked_note, linked, linked.values()))),
        linked=linked,
        used_labels=used_labels,
        other_images=other_images,
    )


def linked_note(arm: str, other: str) -> str:
    """The sentence for an arm that was linked to another one."""
    return f"{arm} is linked to {other}: with the same images and views, its encoders are the same bytes."


def _linked(recipe: Recipe, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Arm → the first arm that has the same encoders, byte for byte (see `adainf.stages.pretrain`)."""
    linked: dict[str, str] = {}
    first: dict[tuple[str, ...], str] = {}
    for arm in recipe.arms:
        outputs = [manifests[pretrained(arm, seed)].outputs for seed in recipe.pretrain.seeds]
        weights = tuple(one.sha256 for of_seed in outputs for one in of_seed if one.key.endswith("/encoder.safetensors"))
        other = first.setdefault(weights, arm) if weights else arm
        if other != arm:
            linked[arm] = other
    return linked


def _source_summary(source: GeneratedSource, manifests: Mapping[str, Manifest]) -> SourceSummary:
    quality, is_fitted = manifests.get(measured(source.name)), isinstance(source.generator, FittedGenerator)
    return SourceSummary(
        source=source,
        images=manifests[generated(source.name)].content_as(ShardSet),
        fitted=manifests[fitted(source.name)].content_as(Fitted) if is_fitted else None,
        quality=quality.content_as(Quality) if quality else None,
    )


def _no_probe_reason(real: ShardSet, test_images: int) -> str:
    """Why no encoder was probed, given that none was."""
    if test_images:
        return ONE_CLASS
    return NO_TEST_LABELS if real.splits["train"].labelled or real.classes else NO_LABELS


def _by_seed(scores: Mapping[str, ArmScores], protocol: Protocol) -> dict[str, Accuracy]:
    """By arm: the accuracies of the protocol, for every arm that was probed."""
    return {
        arm: Accuracy.of([seed.first(protocol) for seed in of_arm.seeds.values()])
        for arm, of_arm in scores.items()
        if of_arm.seeds
    }


def _rows(
    recipe: Recipe,
    linear: Mapping[str, Accuracy],
    knn: Mapping[str, Accuracy],
    trained: Mapping[str, list[Trained]],
    chance: float | None,
) -> list[Row]:
    rows = []
    for name in (*recipe.arms, UNTRAINED):
        comparable = name != "none" and "none" in linear and name in linear
        difference = linear[name].mean - linear["none"].mean if comparable else None
        arm = trained[name][0] if name in trained else None
        rows.append(Row(name, linear.get(name), knn.get(name), difference, arm))
    if chance is not None:
        rows.append(Row(CHANCE, Accuracy((chance,)), Accuracy((chance,)), None, None))
    return rows


def rows_as_json(summary: Summary) -> dict[str, JsonValue]:
    """The results for the manifest of the report: fractions 0..1 and nats, null where not available."""

    def accuracy(value: Accuracy | None) -> JsonValue:
        if value is None:
            return None
        deviation = None if value.std is None else round(value.std, 6)
        interval: list[JsonValue] = [round(end, 6) for end in value.interval(summary.test_images)]
        return {"mean": round(value.mean, 6), "deviation": deviation, "interval": interval}

    gaps = {one.arm: one for one in overfitting(summary.scores)}
    rows: list[JsonValue] = [
        {
            "name": row.name,
            "linear": accuracy(row.linear),
            "knn": accuracy(row.knn),
            "difference_to_none": None if row.difference is None else round(row.difference, 6),
            "infonce": gaps[row.name].as_json() if row.name in gaps else None,
        }
        for row in summary.rows
    ]
    return {"rows": rows, "verdict": summary.conclusion.text, "outcome": summary.conclusion.outcome}
