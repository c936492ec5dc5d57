"""The tasks of a recipe and their dependencies.

A task depends on the tasks whose artifacts it reads. The annotation of its template can add dependencies, not remove any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import get_args

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.templates import Template
from adainf.pipeline.graph import REPORT, build_graph, tasks
from adainf.pipeline.stages import STAGES
from adainf.recipe import Arm, Recipe


@dataclass(frozen=True)
class Task:
    """The unit of work of one Job."""

    name: str
    stage: str
    arm: str | None
    artifacts: tuple[str, ...]
    """The artifacts that it creates, by their names in the pipeline graph."""
    after: frozenset[str]
    """The tasks of this recipe that it waits for."""


def tasks_of(recipe: Recipe, templates: Mapping[str, Template]) -> dict[str, Task]:
    """The tasks by name, in topological order. Raises `BadInput` for an unknown name or a cycle."""
    graph, made = build_graph(recipe), tasks(recipe)
    found = {}
    for name, artifacts in made.items():
        stage, _, arm = name.partition(".")
        reads = set(made) if name == REPORT else {graph[i].task for artifact in artifacts for i in graph[artifact].inputs}
        declared = templates[stage].after
        waits = {task for word in declared.get(arm or None, declared[None]) for task in _resolve(word, stage, made)}
        found[name] = Task(name, stage, arm or None, artifacts, frozenset((reads | waits) - {name}))
    try:
        order = list(TopologicalSorter({name: task.after for name, task in found.items()}).static_order())
    except CycleError as error:
        raise BadInput(
            f"the annotations {labels.AFTER} of the CronJobs form a cycle ({' waits for '.join(reversed(error.args[1]))}): "
            "remove one of them"
        ) from None
    return {name: found[name] for name in order}


def _resolve(word: str, stage: str, made: Mapping[str, object]) -> list[str]:
    """The tasks that a word of an annotation names. Empty if the recipe does not have it."""
    head, dot, arm = word.partition(".")
    if head not in STAGES or (dot and (head != "pretrain" or arm not in get_args(Arm))):
        raise BadInput(
            f"CronJob/adainf-{stage}: annotation {labels.AFTER} names {word!r}, which is not a task: "
            f"use {', '.join(STAGES)} or pretrain.ARM"
        )
    return [task for task in made if task == word or (word == "pretrain" and task.startswith("pretrain."))]
