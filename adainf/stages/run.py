"""run: the whole chain on one machine, stage after stage."""

from __future__ import annotations

from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.recipe import REAL_ALONE, Recipe
from adainf.shards.format.manifest import ShardSet
from adainf.stages.evaluate import evaluate
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.measure import compared_images, measure
from adainf.stages.plan import plan
from adainf.stages.pretrain import check_batch, pretrain
from adainf.stages.report import report
from adainf.stages.verify import verify


def run(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> None:
    """All stages that the recipe's arms need, in an order in which each finds its inputs."""
    real = ingest(recipe, run, reporter).content_as(ShardSet)
    # Known now; it would be a pity to say so after the generator was fitted.
    for arm in [each for each in recipe.arms if each in REAL_ALONE]:
        check_batch(recipe, arm, [real.splits["train"].images], [1.0])
    if recipe.measures_quality:
        compared_images(recipe, real)
    if recipe.uses_generated:
        fit(recipe, run, reporter, allow_foreign)
        generate(recipe, run, reporter, allow_foreign=allow_foreign)
    if "none" in recipe.arms:  # first, as its encoder measures the generated images
        pretrain(recipe, run, reporter, "none")
    if recipe.measures_quality:
        measure(recipe, run, reporter)
    if recipe.uses_plan:
        plan(recipe, run, reporter)
    if recipe.plan.verify is not None:
        verify(recipe, run, reporter)
    for arm in recipe.arms:
        if arm != "none":
            pretrain(recipe, run, reporter, arm)
    evaluate(recipe, run, reporter)
    report(recipe, run, reporter)
