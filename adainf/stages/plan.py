"""plan: how much a real image weighs, and how strong the augmentation may be."""

from __future__ import annotations

from adainf.artifacts import Manifest, Run
from adainf.augment.profiles import default_views
from adainf.chain import begin
from adainf.inflation.policy import InflationPlan, Inputs, make_plan
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.shards.manifest import ShardSet


def plan(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write ``plan.json`` and say what was chosen."""
    sources, wanted, finished = begin(recipe, run, "plan")
    if finished:
        reporter.say("plan: done already (same recipe and inputs); skipped")
        return finished
    inputs = Inputs(
        real_images=sources["real"].content_as(ShardSet).splits["train"].images,
        generated_images=sources["generated"].content_as(ShardSet).splits["train"].images,
        reference_images=recipe.plan.reference_images,
    )
    chosen = make_plan(inputs, recipe.plan, default_views(recipe.pretrain.augmentation))
    manifest = run.commit("plan", Manifest(request=wanted, content=chosen.model_dump(mode="json")))
    explain(chosen, reporter)
    return manifest


def explain(chosen: InflationPlan, reporter: Reporter) -> None:
    """The plan in a few lines."""
    inputs = chosen.inputs
    reporter.say(f"plan: done, for {inputs.real_images:,} real and {inputs.generated_images:,} generated images")
    for choice in chosen.choices:
        reporter.say(f"  {choice.name} {choice.value:g}  = {choice.formula}  ({choice.basis})")
    for warning in chosen.warnings:
        reporter.say(f"  warning: {warning}")
