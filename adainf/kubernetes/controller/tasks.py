"""The tasks of a recipe and their dependencies.

A task depends on the tasks whose artifacts it reads. The annotation of its template can add dependencies, not remove any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.templates import Template
from adainf.pipeline.graph import REPORT, build_graph, tasks
from adainf.recipe import Recipe


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
    """The tasks by name, in topological order. Raises `BadInput` for a cycle. A stage without a template has no annotation."""
    graph, made = build_graph(recipe), tasks(recipe)
    found = {}
    for name, artifacts in made.items():
        stage, _, arm = name.partition(".")
        reads = set(made) if name == REPORT else {graph[i].task for artifact in artifacts for i in graph[artifact].inputs}
        declared = templates[stage].after if stage in templates else {}
        waits = {task for word in declared.get(arm or None, declared.get(None, ())) for task in _resolve(word, made)}
        found[name] = Task(name, stage, arm or None, artifacts, frozenset((reads | waits) - {name}))
    try:
        order = list(TopologicalSorter({name: task.after for name, task in found.items()}).static_order())
    except CycleError as error:
        raise BadInput(
            f"the annotations {labels.AFTER} of the CronJobs form a cycle ({' waits for '.join(reversed(error.args[1]))}): "
            "remove one of them"
        ) from None
    return {name: found[name] for name in order}


def _resolve(word: str, made: Mapping[str, object]) -> list[str]:
    """The tasks that a word of an annotation names. Empty if the recipe does not have it."""
    return [task for task in made if task == word or (word == "pretrain" and task.startswith("pretrain."))]
