"""Short cluster states for tests: a pipeline of four tasks, and one in parallel."""

from __future__ import annotations

from typing import Any

from adainf.kubernetes.controller.state import Attempt, ClusterState
from adainf.kubernetes.controller.tasks import Task
from adainf.kubernetes.controller.templates import Template

AFTER = {
    "ingest": [],
    "fit": ["ingest"],
    "pretrain.none": ["ingest"],
    "evaluate": ["fit", "pretrain.none"],
    "report": ["evaluate"],
}
ALLOWED = 3
"""Attempts without progress."""
RECIPE = "recipe-1"
NOW = 1_000_000.0


def task(name: str) -> Task:
    stage, _, arm = name.partition(".")
    return Task(name, stage, arm or None, (name,), frozenset(AFTER[name]))


TASKS = {name: task(name) for name in AFTER}
TEMPLATES = {
    t.stage: Template(t.stage, f"adainf-{t.stage}", {None: ()}, 900, ALLOWED, {"stage": t.stage}) for t in TASKS.values()
}


def attempt(task: str, number: int = 1, **fields: Any) -> Attempt:
    given = {
        "job": f"adainf-{task.replace('.', '-')}-ab12-{number}",
        "task": task,
        "number": number,
        "created": NOW - 100,
        "state": "active",
        "since": NOW - 100,
        "template_hash": TEMPLATES[task.partition(".")[0]].hash,
        "recipe_sha256": RECIPE,
        "started_with": "m0",
    }
    return Attempt(**{**given, **fields})


def cluster_state(*attempts: Attempt, done: str = "", **fields: Any) -> ClusterState:
    given: dict[str, Any] = {
        "now": NOW,
        "tasks": TASKS,
        "templates": TEMPLATES,
        "recipe_sha256": RECIPE,
        "done": frozenset(done.split()),
        "attempts": attempts,
        "tokens": dict.fromkeys(TASKS, "m0"),
    }
    return ClusterState(**{**given, **fields})
