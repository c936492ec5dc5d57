"""The tasks of a recipe and what each waits for. A task is a stage, or the pretraining of one arm: ``pretrain.ARM``.

The chain says what a task must wait for, as it reads that; a template's annotation adds to it and takes nothing away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import get_args

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.templates import Template
from adainf.pipeline.graph import chain
from adainf.recipe import Arm, Recipe

STAGES = ("ingest", "fit", "generate", "measure", "plan", "verify", "pretrain", "evaluate", "report")
REPORT = "report"
"""The one artifact that is no link of the chain, and its task."""


@dataclass(frozen=True)
class Task:
    """What one Job at a time works on."""

    name: str
    stage: str
    arm: str | None
    artifacts: tuple[str, ...]
    """What it leaves, all of it: by `chain.chain`'s names."""
    after: frozenset[str]
    """The tasks of this recipe that must be done first."""


def artifacts_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The artifacts of each task that the recipe has."""
    artifacts: dict[str, tuple[str, ...]] = {}
    for name, link in chain(recipe).items():
        arm = str(link.settings["arm"]) if link.stage == "pretrain" else None
        task = labels.task_name(link.stage, arm)
        artifacts[task] = (*artifacts.get(task, ()), name)
    return {**artifacts, REPORT: (REPORT,)}


def tasks_of(recipe: Recipe, templates: Mapping[str, Template]) -> dict[str, Task]:
    """The tasks by name, each after those that it waits for. Raises `BadInput` for a name that is no task, or a circle."""
    links = chain(recipe)
    artifacts = artifacts_of(recipe)
    made_by = {artifact: task for task, names in artifacts.items() for artifact in names}
    tasks = {}
    for name, made in artifacts.items():
        stage, _, arm = name.partition(".")
        inputs = {made_by[before] for artifact in made if artifact != REPORT for before in links[artifact].inputs}
        if name == REPORT:
            inputs = set(artifacts) - {REPORT}
        declared = templates[stage].after
        wanted = {task for word in declared.get(arm or None, declared[None]) for task in _resolve(word, stage, artifacts)}
        tasks[name] = Task(name, stage, arm or None, made, frozenset((inputs | wanted) - {name}))
    try:
        order = list(TopologicalSorter({name: task.after for name, task in tasks.items()}).static_order())
    except CycleError as error:
        raise BadInput(
            f"the annotations {labels.AFTER} let {' wait for '.join(reversed(error.args[1]))}: a circle; take one of them out"
        ) from None
    return {name: tasks[name] for name in order}


def _resolve(word: str, stage: str, artifacts: Mapping[str, object]) -> list[str]:
    """The tasks that a word of an annotation stands for; none, where the recipe does not have it."""
    head, dot, arm = word.partition(".")
    if head not in STAGES or (dot and (head != "pretrain" or arm not in get_args(Arm))):
        raise BadInput(
            f"CronJob/adainf-{stage}: annotation {labels.AFTER} names {word!r}, which is no task; "
            f"write {', '.join(STAGES)} or pretrain.ARM"
        )
    return [task for task in artifacts if task == word or (word == "pretrain" and task.startswith("pretrain."))]
