"""All that the report says, collected from the manifests of a run as one typed object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue

from adainf.augment.profiles import Profile
from adainf.evaluation.scores import ArmScores, Protocol
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import VerifyResult
from adainf.pipeline.artifacts import Manifest, Run
from adainf.pipeline.graph import UNTRAINED, build_graph, evaluated, fitted, generated, measured, pretrained, require
from adainf.quality.record import Quality
from adainf.recipe import FittedGenerator, Recipe, Source
from adainf.report.overfitting import overfitting
from adainf.report.verdict import NO_LABELS, NO_TEST_LABELS, ONE_CLASS, Score, Verdict, judge
from adainf.shards.format.manifest import ShardSet

CHANCE = "chance"

Curve = list[tuple[int, float]]
"""(step, loss)."""


class _Content(BaseModel):
    # What a stage adds to its manifest later must not break the report of it.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Fitted(_Content):
    """What the report reads of ``generator/``, where the run has fitted it."""

    kind: str
    steps: int
    images_seen: int
    curve: Curve = []
    used_labels: bool = False


class Trained(_Content):
    """What the report reads of ``pretrain/ARM/seed-S/``."""

    arm: str
    seed: int
    steps: int
    global_batch: int
    curve: Curve = []
    generated_share: float
    shares: dict[str, float]
    """By source, the real images among them."""
    real_weight: float
    passes_per_real_image: float
    passes_per_generated_image: float
    views: tuple[Profile, Profile]


@dataclass(frozen=True)
class Row:
    """One line of the results table."""

    name: str
    """An arm, `untrained` or `chance`."""
    linear: Score | None
    knn: Score | None
    difference: float | None
    """Linear probe less that of `none`, 0..1; None for `none` itself, and where there is nothing to compare."""
    trained: Trained | None
    """The first seed; what is shown of it is the same for all."""


@dataclass(frozen=True)
class Inflation:
    """One source of generated images."""

    source: Source
    images: ShardSet
    fitted: Fitted | None
    quality: Quality | None

    @property
    def used_labels(self) -> bool:
        """Whether its images owe anything to labels, which the method must not use."""
        return bool(self.fitted and self.fitted.used_labels) or bool(self.images.origin.get("used_labels", False))

    @property
    def other_images(self) -> bool:
        """Whether they owe anything to other images than the run's real ones; see `GeneratorManifest.foreign`."""
        foreign = self.images.origin.get("foreign", [])
        return isinstance(foreign, list) and "trained_on" in foreign


@dataclass(frozen=True)
class Summary:
    """One run, as the report shows it."""

    recipe: Recipe
    manifests: dict[str, Manifest]
    """Every artifact that was read, by name, in the order of the pipeline graph."""
    real: ShardSet
    sources: list[Inflation]
    """Of generated images, in the order of their names; none where no arm has any."""
    plan: InflationPlan | None
    verified: VerifyResult | None
    trained: dict[str, list[Trained]]
    """By arm, one for each seed."""
    test_images: int
    chance: float | None
    """Accuracy of always naming the most common training label; None without a probe."""
    lacking: str | None
    """What the data have, or rather lack, where no encoder was probed, for "The data have ..."; None with a probe."""
    scores: dict[str, ArmScores]
    """By arm, and those of `untrained`: every measure, where the rows have two."""
    rows: list[Row]
    """The recipe's arms in its order, then `untrained` and `chance`."""
    verdict: Verdict
    used_labels: bool
    """Whether any generated images owe anything to labels, which the method must not use."""
    other_images: bool
    """Whether any owe anything to other images than the run's real ones."""

    @property
    def seeds(self) -> int:
        return len(self.recipe.pretrain.seeds)


def collect(recipe: Recipe, run: Run) -> Summary:
    """Read the manifests of a finished run. Raises `BadInput` as `graph.require` does."""
    manifests = require(recipe, run, build_graph(recipe))
    real = manifests["real"].content_as(ShardSet)
    sources = [_inflation(source, manifests) for source in recipe.sources.values()] if recipe.uses_generated else []
    trained: dict[str, list[Trained]] = {
        arm: [manifests[pretrained(arm, s)].content_as(Trained) for s in recipe.pretrain.seeds] for arm in recipe.arms
    }
    judged = (*recipe.arms, UNTRAINED)
    scores = {name: manifests[evaluated(name)].content_as(ArmScores) for name in judged}
    linear, knn = _by_seed(scores, "linear"), _by_seed(scores, "knn")
    first = scores[recipe.arms[0]]
    chance = first.chance if linear else None
    lacking = _lacking(real, first.test_images)
    used_labels, other_images = any(one.used_labels for one in sources), any(one.other_images for one in sources)
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
        lacking=None if linear else lacking,
        scores=scores,
        rows=_rows(recipe, linear, knn, trained, chance),
        verdict=judge(linear, recipe.arms, first.test_images, used_labels, lacking, other_images),
        used_labels=used_labels,
        other_images=other_images,
    )


def _inflation(source: Source, manifests: Mapping[str, Manifest]) -> Inflation:
    quality, is_fitted = manifests.get(measured(source.name)), isinstance(source.generator, FittedGenerator)
    return Inflation(
        source=source,
        images=manifests[generated(source.name)].content_as(ShardSet),
        fitted=manifests[fitted(source.name)].content_as(Fitted) if is_fitted else None,
        quality=quality.content_as(Quality) if quality else None,
    )


def _lacking(real: ShardSet, test_images: int) -> str:
    """Why there is no probe, given that there is none."""
    if test_images:
        return ONE_CLASS
    return NO_TEST_LABELS if real.splits["train"].labelled or real.classes else NO_LABELS


def _by_seed(scores: Mapping[str, ArmScores], protocol: Protocol) -> dict[str, Score]:
    """The protocol's accuracies of every arm that was probed."""
    return {
        arm: Score(tuple(seed.accuracy(protocol) for seed in judged.seeds.values()))
        for arm, judged in scores.items()
        if judged.seeds
    }


def _rows(
    recipe: Recipe,
    linear: Mapping[str, Score],
    knn: Mapping[str, Score],
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
        rows.append(Row(CHANCE, Score((chance,)), Score((chance,)), None, None))
    return rows


def rows_as_json(summary: Summary) -> dict[str, JsonValue]:
    """The results for the report's own manifest: fractions 0..1 and nats, null where there is nothing."""

    def score(value: Score | None) -> JsonValue:
        if value is None:
            return None
        deviation = None if value.deviation is None else round(value.deviation, 6)
        interval: list[JsonValue] = [round(end, 6) for end in value.interval(summary.test_images)]
        return {"mean": round(value.mean, 6), "deviation": deviation, "interval": interval}

    overfits = {one.arm: one for one in overfitting(summary.scores)}
    rows: list[JsonValue] = [
        {
            "name": row.name,
            "linear": score(row.linear),
            "knn": score(row.knn),
            "difference_to_none": None if row.difference is None else round(row.difference, 6),
            "infonce": overfits[row.name].as_json() if row.name in overfits else None,
        }
        for row in summary.rows
    ]
    return {"rows": rows, "verdict": summary.verdict.text, "outcome": summary.verdict.outcome}
