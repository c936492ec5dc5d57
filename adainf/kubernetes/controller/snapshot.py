"""Takes snapshots of the observed state: recipe, templates, Jobs, pods and the run's store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adainf.errors import AdaInfError, BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, PODS, Api, ApiStatusError, Unavailable
from adainf.kubernetes.controller.informer import Informer
from adainf.kubernetes.controller.parse import create_failures, is_child, read_attempt, read_pod
from adainf.kubernetes.controller.recipes import RecipeSource, Selection
from adainf.kubernetes.controller.run_state import done_tasks
from adainf.kubernetes.controller.scrape import scrape
from adainf.kubernetes.controller.state import Attempt, ClusterState, Pod, Problem
from adainf.kubernetes.controller.tasks import Task, tasks_of
from adainf.kubernetes.controller.templates import Object, Owner, RecipeRef, Template, read_template
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import tasks
from adainf.recipe import Recipe

_TEMPLATES_S = 60
_EVENTS_S = 15
_SCRAPE_S = 5
_REJECTED_S = 60
"""Time until the creation of a rejected Job is tried again."""


class StoreUnreachable(Unavailable):
    """The run's store is unreachable. Unlike an unreachable API server, this can be reported by an Event."""


class ClusterSnapshot:
    """The source of the observed state. `wake` is called after each change in the cluster."""

    def __init__(self, api: Api, owner: Owner, run: Run, recipe_file: Path, wake: Callable[[], None]) -> None:
        self._api, self._owner = api, owner
        self._recipes = RecipeSource(run, owner, recipe_file)
        selector = f"{labels.RUN}={owner.name}"
        self.jobs = Informer(api, JOBS, "jobs", selector, wake)
        self._pods = Informer(api, PODS, "pods", selector, wake)
        self.recipe_ref = RecipeRef("", "")
        self._stages: set[str] = set()
        self._templates: dict[str, Template] = {}
        self._invalid_templates: dict[str, str] = {}
        """Stage → what is wrong with its template."""
        self._rejected: dict[str, tuple[Problem, float]] = {}
        """Task → why the API server rejects its Job, and when to try again."""
        self._problems: dict[str, Problem] = {}
        self._templates_at = self._events_at = self._scraped_at = float("-inf")
        self._events: list[Object] = []
        self._progress: dict[str, str] = {}
        self._worked_at: dict[str, float] | None = None

    def take(self, *, refresh_templates: bool = False) -> ClusterState:
        """The current state. Templates are cached for a minute, unless `refresh_templates`.

        Bad input is a part of the state, so that one function decides how the run ends. Raises `Unavailable` if the API server
        does not respond, `StoreUnreachable` if the store does not, and `ApiStatusError`.
        """
        # List Jobs before the store: if a Job has ended, its artifacts are visible in the store.
        attempts = tuple(read_attempt(job) for job in self.jobs.objects() if is_child(job, self._owner))
        known = {attempt.job for attempt in attempts}
        pods = tuple(pod for pod in map(read_pod, self._pods.objects()) if pod.job in known)
        now = self._api.now()
        worked_at = self._at_work(attempts, pods, now)
        try:
            selected = self._recipes.select(attempts)
        except (AdaInfError, OSError) as error:
            raise _unreachable(error) from None
        if selected.loaded is None:
            problem = self._problems_of({}, frozenset(), selected, "")[""]
            return ClusterState(now, {}, {}, "", frozenset(), attempts, pods, worked_at=worked_at, recipe_problem=problem)
        recipe, self.recipe_ref, run_state = selected.loaded.recipe, selected.loaded.ref, selected.loaded.run_state
        self._read_templates(recipe, refresh_templates)
        tasks, cycle = self._tasks(recipe)
        done = done_tasks(tasks, selected.finished)
        problems = self._problems_of(tasks, done, selected, cycle)
        try:
            startable = [task for name, task in tasks.items() if name not in done and task.after <= done]
            tokens = {task.name: run_state.token(task, selected.finished) for task in startable}
            ended = [attempt for attempt in attempts if attempt.state != "active" and attempt.task not in done]
            records = {attempt.job: run_state.records(attempt.job, attempt.state != "ending") for attempt in ended}
        except (AdaInfError, OSError) as error:
            raise _unreachable(error) from None
        return ClusterState(
            now=now,
            tasks=tasks,
            templates=self._templates,
            recipe_sha256=self.recipe_ref.sha256,
            done=done,
            attempts=attempts,
            pods=pods,
            tokens=tokens,
            records=records,
            create_failures=create_failures(self._read_events(attempts, pods), attempts, pods, now),
            worked_at=worked_at,
            progress=self._progress,
            recipe_problem=problems.pop("", None),
            problems=problems,
        )

    def created(self, task: str, rejected: str) -> None:
        """Remember whether the API server accepted the Job of a task. A rejected one is tried again after a minute."""
        before = self._rejected.pop(task, None)
        if rejected:
            since = before[0].since if before else self._api.now()
            self._rejected[task] = (Problem("JobRejected", rejected, since), time.monotonic() + _REJECTED_S)

    def scrape(self) -> None:
        """Read the progress of the running pods. Called only when no change is pending, as it can take a second."""
        if time.monotonic() >= self._scraped_at + _SCRAPE_S:
            self._progress = scrape(map(read_pod, self._pods.objects()))
            self._scraped_at = time.monotonic()

    def _problems_of(
        self, tasks: Mapping[str, Task], done: frozenset[str], selected: Selection, cycle: str
    ) -> dict[str, Problem]:
        """Task → why its next attempt cannot be created. The key of a problem of the recipe is empty."""
        found = {"": ("RecipeInvalid", selected.problem)} if selected.problem else {}
        rejected = {}
        for name, task in tasks.items():
            conflicts = [selected.conflicts[each] for each in task.artifacts if each in selected.conflicts]
            if name in done:
                continue
            if conflicts:
                found[name] = ("ArtifactInvalid", conflicts[0])
            elif cycle or task.stage in self._invalid_templates:
                found[name] = ("TemplateInvalid", self._invalid_templates.get(task.stage, cycle))
            elif name in self._rejected and time.monotonic() < self._rejected[name][1]:
                rejected[name] = self._rejected[name][0]
        before, now = self._problems, self._api.now()
        self._problems = {
            name: Problem(reason, message, before[name].since if name in before else now)
            for name, (reason, message) in found.items()
        }
        return self._problems | rejected

    def _tasks(self, recipe: Recipe) -> tuple[Mapping[str, Task], str]:
        """The tasks of a recipe, and what is wrong with their dependencies: then none but those of the pipeline graph apply."""
        try:
            return tasks_of(recipe, self._templates), ""
        except BadInput as error:
            return tasks_of(recipe, {}), str(error)

    def _read_templates(self, recipe: Recipe, refresh: bool) -> None:
        """Read the templates that the recipe needs. The last valid one of a stage stays."""
        stages = {name.partition(".")[0] for name in tasks(recipe)}
        if not refresh and stages <= self._stages and time.monotonic() < self._templates_at + _TEMPLATES_S:
            return
        self._invalid_templates = {}
        for stage in sorted(stages):
            try:
                self._templates[stage] = read_template(stage, self._cronjob(stage))
            except BadInput as error:
                self._invalid_templates[stage] = str(error)
        self._stages, self._templates_at = stages, time.monotonic()

    def _cronjob(self, stage: str) -> Object:
        name = f"{self._owner.name}-{stage}"
        try:
            return self._api.get(JOBS, "cronjobs", name)
        except ApiStatusError as error:
            if error.status != 404:
                raise
            raise BadInput(
                f"CronJob/{name}, the Job template of stage {stage}, does not exist: apply the manifests again"
            ) from None

    def _at_work(self, attempts: Sequence[Attempt], pods: Sequence[Pod], now: float) -> dict[str, float]:
        """`ClusterState.worked_at`. A new process does not know, so it assumes that they were at work until its start."""
        before = self._worked_at if self._worked_at is not None else {attempt.job: now for attempt in attempts}
        running = [pod.job for pod in pods if pod.phase == "Running" and pod.deleted is None]
        working = [a.job for a in attempts if running.count(a.job) >= (max(a.pods_wanted, 1) if a.gang else 1)]
        self._worked_at = before | dict.fromkeys(working, now)
        return self._worked_at

    def _read_events(self, attempts: Sequence[Attempt], pods: Sequence[Pod]) -> list[Object]:
        """The `FailedCreate` Events, which are read only while an attempt lacks pods."""
        running = [pod.job for pod in pods if not pod.ended]
        incomplete = [a for a in attempts if a.state == "active" and running.count(a.job) < a.pods_wanted]
        if incomplete and time.monotonic() >= self._events_at + _EVENTS_S:
            self._events = self._api.list(EVENTS, "events", fieldSelector="reason=FailedCreate")["items"]
            self._events_at = time.monotonic()
        return self._events


def _unreachable(error: Exception) -> StoreUnreachable:
    return StoreUnreachable(f"the run's store is unreachable: {error}")
