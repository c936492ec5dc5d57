"""plan: how much a real image weighs, and how strong the augmentation may be."""

from __future__ import annotations

import json

from adainf.artifacts import Manifest, Run
from adainf.augment.profiles import default_views
from adainf.chain import begin, chain, request, require_inputs
from adainf.inflation import explain
from adainf.inflation.policy import InflationPlan, Inputs, make_plan
from adainf.inflation.verify import Verified
from adainf.inflation.what_if import supposed
from adainf.inflation.worth import Measured
from adainf.progress import Reporter
from adainf.quality.record import Quality
from adainf.recipe import Plan, Pretrain, Recipe
from adainf.shards.manifest import ShardSet

NAME = "plan"


def plan(recipe: Recipe, run: Run, reporter: Reporter, as_json: bool = False) -> Manifest:
    """Write ``plan.json`` and say what was chosen, and why."""
    sources, wanted, finished = begin(recipe, run, NAME)
    if finished:
        manifest, chosen = finished, finished.content_as(InflationPlan)
    else:
        chosen = make_plan(_inputs(recipe, sources), recipe.plan, default_views(recipe.pretrain.augmentation))
        manifest = run.commit(NAME, Manifest(request=wanted, content=chosen.model_dump(mode="json")))
    if not as_json:
        reporter.say("plan: done already (same recipe and inputs)" if finished else "plan: done")
    _show(chosen, recipe.pretrain, reporter, as_json, _verified(recipe, run))
    return manifest


def what_if(recipe: Recipe | None, run: Run | None, reporter: Reporter, text: str, as_json: bool = False) -> None:
    """Say what the plan would be for other numbers than the run's; nothing is read but manifests, and nothing written."""
    known = None
    needed = chain(recipe).get(NAME) if recipe else None
    if recipe and run and needed and all(run.find(name) for name in needed.inputs):
        known = _inputs(recipe, require_inputs(recipe, run, NAME))
    rule, pretrain = (recipe.plan, recipe.pretrain) if recipe else (Plan(), Pretrain())
    inputs = supposed(text, known, rule.reference_images)
    _show(make_plan(inputs, rule, default_views(pretrain.augmentation)), pretrain, reporter, as_json)


def _inputs(recipe: Recipe, sources: dict[str, Manifest]) -> Inputs:
    counts = {name: sources[name].content_as(ShardSet).splits["train"].images for name in ("real", "generated")}
    measured = sources.get("quality")
    return Inputs(
        real_images=counts["real"],
        generated_images=counts["generated"],
        measured=Measured.of(measured.content_as(Quality)) if measured else None,
        reference_images=recipe.plan.reference_images,
    )


def _verified(recipe: Recipe, run: Run) -> Verified | None:
    """What the probes chose, where they have answered this recipe."""
    found = run.find("verify") if recipe.plan.verify is not None else None
    if found is None or found.request != request(recipe, "verify", require_inputs(recipe, run, "verify")):
        return None
    return found.content_as(Verified)


def _show(
    chosen: InflationPlan, pretrain: Pretrain, reporter: Reporter, as_json: bool, verified: Verified | None = None
) -> None:
    draws = pretrain.steps * pretrain.global_batch
    if as_json:
        print(json.dumps(explain.as_json(chosen, pretrain.augmentation.family, draws, verified), indent=2))
        return
    for line in [*explain.lines(chosen, draws), *(verified.why if verified else ())]:
        reporter.say(line)
