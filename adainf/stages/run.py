"""run: the whole chain on one machine, stage after stage."""

from __future__ import annotations

from adainf.artifacts import Run
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.shards.manifest import ShardSet
from adainf.stages.evaluate import evaluate
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.plan import plan
from adainf.stages.pretrain import check_batch, pretrain
from adainf.stages.report import report


def run(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> None:
    """All stages that the recipe's arms need, in an order in which each finds its inputs."""
    real = ingest(recipe, run, reporter).content_as(ShardSet)
    if "none" in recipe.arms:
        # Known now; it would be a pity to say so after the generator was fitted.
        check_batch(recipe, "none", [real.splits["train"].images], [1.0])
    if recipe.uses_generated:
        fit(recipe, run, reporter, allow_foreign)
        generate(recipe, run, reporter, allow_foreign)
    if "adainf" in recipe.arms:
        plan(recipe, run, reporter)
    pretrain(recipe, run, reporter)
    evaluate(recipe, run, reporter)
    report(recipe, run, reporter)
