"""plan: the weight of a real image and the strength of augmentation."""

from __future__ import annotations

import json

from adainf.augment.profiles import default_views
from adainf.inflation import explain
from adainf.inflation.policy import make_plan
from adainf.inflation.quality_score import Measured
from adainf.inflation.record import InflationPlan, Inputs, SourceStats
from adainf.inflation.search import VerifyResult
from adainf.inflation.what_if import parse_what_if
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, generated, measured, request, require_inputs
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.quality.record import Quality
from adainf.recipe import Plan, Pretrain, Recipe
from adainf.shards.format.manifest import ShardSet

NAME = "plan"


def plan(recipe: Recipe, run: Run, reporter: Reporter, as_json: bool = False) -> Manifest:
    """Write ``plan.json`` and print the choices with their reasons."""
    with artifact(recipe, run, NAME, Reporter(quiet=True) if as_json else reporter, "plan") as job:
        manifest = job.finished
        if manifest is None:
            inputs = _inputs(recipe, job.inputs)
            manifest = job.commit(make_plan(inputs, recipe.plan, default_views(recipe.pretrain.augmentation)))
            if not as_json:
                reporter.info("plan: done")
    _show(manifest.content_as(InflationPlan), recipe.pretrain, reporter, as_json, _verified(recipe, run))
    return manifest


def what_if(recipe: Recipe | None, run: Run | None, reporter: Reporter, text: str, as_json: bool = False) -> None:
    """Print the plan for other numbers than the run's; reads manifests only and writes nothing."""
    known = None
    needed = build_graph(recipe).get(NAME) if recipe else None
    if recipe and run and needed and all(run.find(name) for name in needed.inputs):
        known = _inputs(recipe, require_inputs(recipe, run, NAME))
    rule, pretrain = (recipe.plan, recipe.pretrain) if recipe else (Plan(), Pretrain())
    inputs = parse_what_if(text, known, rule.reference_images, pretrain.method.kind)
    _show(make_plan(inputs, rule, default_views(pretrain.augmentation)), pretrain, reporter, as_json)


def _inputs(recipe: Recipe, made: dict[str, Manifest]) -> Inputs:
    def images(name: str) -> int:
        return made[name].content_as(ShardSet).splits["train"].images

    sources: dict[str, SourceStats] = {}
    for source in recipe.sources:
        name = generated(source)
        quality = made[measured(source)].content_as(Quality) if recipe.measures_quality else None
        sources[name] = SourceStats(images=images(name), measured=Measured.of(quality) if quality else None)
    return Inputs(
        real_images=images("real"),
        sources=sources,
        reference_images=recipe.plan.reference_images or images("real"),
        method=recipe.pretrain.method.kind,
    )


def _verified(recipe: Recipe, run: Run) -> VerifyResult | None:
    """The result of verify, where it is finished for this recipe."""
    found = run.find("verify") if recipe.plan.verify is not None else None
    if found is None or found.request != request(recipe, "verify", require_inputs(recipe, run, "verify")):
        return None
    return found.content_as(VerifyResult)


def _show(
    chosen: InflationPlan, pretrain: Pretrain, reporter: Reporter, as_json: bool, verified: VerifyResult | None = None
) -> None:
    draws, default = pretrain.steps * pretrain.global_batch, default_views(pretrain.augmentation)
    if as_json:
        print(json.dumps(explain.as_json(chosen, pretrain.augmentation.family, draws, verified), indent=2))
        return
    for line in [*explain.lines(chosen, draws, default[0].min_scale), *(verified.why if verified else ())]:
        reporter.result(line)
