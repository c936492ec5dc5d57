"""run: all stages on one machine, in the order of the pipeline graph."""

from __future__ import annotations

from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import tasks
from adainf.pipeline.progress import Reporter
from adainf.pipeline.stages import STAGES
from adainf.recipe import REAL_ALONE, Recipe
from adainf.shards.format.manifest import ShardSet
from adainf.stages.ingest import ingest
from adainf.stages.measure import compared_images
from adainf.stages.mixture import check_batch


def run(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> None:
    """Run every task that the recipe's arms need; each finds its inputs finished."""
    _check(recipe, ingest(recipe, run, reporter).content_as(ShardSet))
    for task in tasks(recipe):
        name, _, arm = task.partition(".")
        stage = STAGES[name]
        options: dict[str, object] = {"arm": arm} if arm else {}
        if "allow_foreign" in stage.options:
            options |= {"allow_foreign": allow_foreign}
        if name != "ingest":
            stage.load()(recipe, run, reporter, **options)


def _check(recipe: Recipe, real: ShardSet) -> None:
    """Refuse, before the generator is fitted, what the real images rule out."""
    for arm in [each for each in recipe.arms if each in REAL_ALONE]:
        check_batch(recipe, arm, [real.splits["train"].images], [1.0])
    if recipe.measures_quality:
        compared_images(recipe, real)
