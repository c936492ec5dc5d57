"""run: all stages on one machine, in the order of the pipeline graph."""

from __future__ import annotations

from collections.abc import Sequence

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import tasks
from adainf.pipeline.progress import Reporter
from adainf.pipeline.stages import STAGES
from adainf.pipeline.variants import reuse
from adainf.recipe import REAL_ALONE, Recipe
from adainf.shards.format.manifest import ShardSet
from adainf.stages.ingest import ingest
from adainf.stages.measure import compared_images
from adainf.stages.mixture import check_batch


def run(
    recipe: Recipe,
    run: Run,
    reporter: Reporter,
    allow_foreign: bool = False,
    *,
    only: Sequence[str] = (),
    until: str | None = None,
    others: Sequence[Run] = (),
) -> None:
    """Run every task that the recipe's arms need; each finds its inputs finished.

    `only`: the tasks of these stages. `until`: the tasks up to the last one of this stage. `others`: runs whose artifacts are
    reused where this run lacks them. Raises `BadInput` for a stage that the recipe does not have.
    """
    chosen = _chosen(recipe, only, until)
    for name, other in reuse(recipe, run, others):
        reporter.info(f"run: {name} is that of {other.uri}; reused")
    if "ingest" in chosen:
        _check(recipe, ingest(recipe, run, reporter).content_as(ShardSet))
    for task in chosen:
        name, _, arm = task.partition(".")
        stage = STAGES[name]
        options: dict[str, object] = {"arm": arm} if arm else {}
        if "allow_foreign" in stage.options:
            options |= {"allow_foreign": allow_foreign}
        if name != "ingest":
            stage.load()(recipe, run, reporter, **options)


def _chosen(recipe: Recipe, only: Sequence[str], until: str | None) -> list[str]:
    """The tasks to run, in order."""
    names = list(tasks(recipe))
    stages = [name.partition(".")[0] for name in names]
    for stage in (*only, *([until] if until else [])):
        if stage not in stages:
            raise BadInput(f"the recipe has no stage {stage}; choose from {', '.join(dict.fromkeys(stages))}")
    last = len(names) if until is None else len(names) - stages[::-1].index(until)
    return [name for name, stage in list(zip(names, stages, strict=True))[:last] if not only or stage in only]


def _check(recipe: Recipe, real: ShardSet) -> None:
    """Refuse, before the generator is fitted, what the real images rule out."""
    for arm in [each for each in recipe.arms if each in REAL_ALONE]:
        check_batch(recipe, arm, [real.splits["train"].images], [1.0])
    if recipe.measures_quality:
        compared_images(recipe, real)
