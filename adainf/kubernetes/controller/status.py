"""``adainf status`` and ``adainf wait`` print the state of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adainf.kubernetes.controller.api import Unavailable, connect
from adainf.kubernetes.controller.overview import Overview, TaskView, read_overview
from adainf.kubernetes.controller.scrape import duration
from adainf.kubernetes.controller.state import Problem

_POLL_S = 2
_ALTERNATING = {"ErrImagePull": "ImagePullBackOff"}
"""The kubelet alternates between these reasons: they are one problem."""


def status(namespace: str | None = None, name: str = "adainf", as_json: bool = False) -> None:
    """Print a table with the latest attempt of each task, or what the task waits for, and the state of the run.

    Raises `BadInput` if the controller's Job does not exist.
    """
    api = connect(namespace)
    seen = read_overview(api, name)
    columns = ("stage", "arm", "attempt", "state", "pods", "progress", "ETA", "GPU time", "reason")
    if as_json:
        tasks = [dict(zip(columns, _row(task, seen.now), strict=True)) for task in seen.tasks]
        condition = _reported(seen.condition, seen.now) if seen.condition else None
        run = {"tasks": tasks, "message": seen.message, "condition": condition, "exit_code": seen.exit_code}
        print(json.dumps(run, indent=2, ensure_ascii=False))
        return
    table = Table(*columns, title=f"Job/{name} in {api.namespace}")
    for task in seen.tasks:
        table.add_row(*map(Text, _row(task, seen.now)))  # as text: a message may contain brackets
    for column in table.columns:
        column.overflow = "fold"  # a pipe has 80 columns: the default would truncate words
    console = Console(highlight=False)
    console.print(table)
    console.print(seen.message, markup=False, soft_wrap=True)
    if seen.condition:
        console.print(_reported(seen.condition, seen.now), markup=False, soft_wrap=True)


def wait(namespace: str | None = None, name: str = "adainf", timeout_s: float | None = None) -> int:
    """Return 0 once the run is complete, 1 if it failed or the time-out expired. Print each change, and last the reason."""
    api = connect(namespace)
    deadline = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    shown: dict[str, object] = {}
    while True:
        try:
            seen = read_overview(api, name)
        except Unavailable as error:
            code, message = None, str(error)
            lines: dict[str, tuple[object, str]] = {"": (message, f"{message}; retrying")}
        else:
            code, message = seen.exit_code, seen.message
            lines = dict(_lines(seen))
        for subject, (key, line) in lines.items():
            if shown.get(subject, "") != key:
                print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", flush=True)
            shown[subject] = key
        if code is None and time.monotonic() >= deadline:
            code, message = 1, f"{message}: timed out after {timeout_s:.0f} s, the run continues"
        if code is not None:
            print(message)
            return code
        time.sleep(min(_POLL_S, max(deadline - time.monotonic(), 0)))


def _lines(seen: Overview) -> Iterator[tuple[str, tuple[object, str]]]:
    """Subject → what changes are detected by, and the line to print. An empty key is as if there had been no line."""
    problem = seen.condition
    yield "", (_key(problem), _reported(problem, seen.now) if problem else "the pipeline continues")
    for task in seen.tasks:
        parts = [task.state, *([f"{task.pods} pods ready"] if task.pods else []), *_why(task, seen.now)]
        attempt = f", attempt {task.attempt.number}" if task.attempt else ""
        key = (attempt, task.state, task.pods, _key(task.condition)) if task.attempt else _key(task.condition)
        yield task.name, (key, f"{task.name}{attempt}: {'; '.join(parts)}")


def _key(condition: Problem | None) -> str:
    return _ALTERNATING.get(condition.reason, condition.reason) if condition else ""


def _row(task: TaskView, now: float) -> tuple[str, ...]:
    stage, _, arm = task.name.partition(".")
    number, progress, eta = "", "", ""
    if task.attempt:
        number = str(task.attempt.number)
        progress, _, eta = task.attempt.progress.partition("eta ")
    gpu = duration(task.gpu_s) if task.gpu_s else ""
    return stage, arm, number, task.state, task.pods, progress, eta, gpu, "; ".join(_why(task, now))


def _why(task: TaskView, now: float) -> Iterator[str]:
    if task.attempt and task.attempt.state == "failed":
        yield task.attempt.message
    if task.waits_for:
        yield f"for {', '.join(task.waits_for)}"
    if task.condition:
        yield _reported(task.condition, now)


def _reported(condition: Problem, now: float) -> str:
    return f"{condition.reason} for {duration(max(now - condition.since, 0))}: {condition.message}"
