"""Takes snapshots of the observed state: recipe, templates, Jobs, pods and the run's store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from adainf.errors import AdaInfError, BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, PODS, Api, ApiStatusError, Unavailable
from adainf.kubernetes.controller.informer import Informer
from adainf.kubernetes.controller.parse import is_child, read_attempt, read_pod
from adainf.kubernetes.controller.run_state import RunState, done_tasks
from adainf.kubernetes.controller.scrape import scrape
from adainf.kubernetes.controller.state import Attempt, ClusterState, Pod
from adainf.kubernetes.controller.tasks import Task, tasks_of
from adainf.kubernetes.controller.templates import Owner, RecipeRef, Template, read_template
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import tasks
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.records import sha256
from adainf.recipe import Recipe

_TEMPLATES_S = 60
_EVENTS_S = 15
_SCRAPE_S = 5
_STORE_STARTUP_S = 900
"""Time-out for a store that is still starting: after it, a store that never responded is bad input."""


class StoreUnreachable(Unavailable):
    """The run's store is unreachable. Unlike an unreachable API server, this can be reported by an Event."""


class ClusterSnapshot:
    """The source of the observed state. `wake` is called after each change in the cluster."""

    def __init__(self, api: Api, owner: Owner, run: Run, recipe_file: Path, wake: Callable[[], None]) -> None:
        self._api, self._owner, self._run, self._recipe_file = api, owner, run, recipe_file
        selector = f"{labels.RUN}={owner.name}"
        self.jobs = Informer(api, JOBS, "jobs", selector, wake)
        self._pods = Informer(api, PODS, "pods", selector, wake)
        self.recipe_ref = RecipeRef("", "")
        self._recipe: Recipe | None = None
        self._run_state: RunState | None = None
        self._templates: dict[str, Template] = {}
        self._began = time.monotonic()
        self._templates_at = self._events_at = self._scraped_at = float("-inf")
        self._create_failures: dict[str, str] = {}
        self._progress: dict[str, str] = {}

    def take(self, *, refresh_templates: bool = False) -> ClusterState:
        """The current state. Templates are cached for a minute, unless `refresh_templates`.

        Bad input is a part of the state, so that one function decides how the run ends. Raises `Unavailable` if the API server
        does not respond, `StoreUnreachable` if the store does not, and `ApiStatusError`.
        """
        # List Jobs before the store: if a Job has ended, its artifacts are visible in the store.
        attempts = tuple(read_attempt(job) for job in self.jobs.objects() if is_child(job, self._owner))
        known = {attempt.job for attempt in attempts}
        pods = tuple(pod for pod in map(read_pod, self._pods.objects()) if pod.job in known)
        try:
            recipe, run_state = self._read_recipe(first=not attempts)
            templates = self._read_templates(recipe, refresh_templates)
            tasks = tasks_of(recipe, templates)
        except BadInput as error:
            return ClusterState(time.time(), {}, {}, "", frozenset(), attempts, bad_input=str(error))
        try:
            finished, problem = run_state.finished()
            done = done_tasks(tasks, finished)
            tokens = {
                name: run_state.token(task, finished) for name, task in tasks.items() if self._is_startable(name, task, done)
            }
            ended = [attempt for attempt in attempts if attempt.state != "active" and attempt.task not in done]
            records = {attempt.job: run_state.records(attempt.job, attempt.state != "ending") for attempt in ended}
        except (AdaInfError, OSError) as error:
            raise StoreUnreachable(f"the run's store is unreachable: {error}") from None
        return ClusterState(
            now=time.time(),
            tasks=tasks,
            templates=templates,
            recipe_sha256=self.recipe_ref.sha256,
            done=done,
            attempts=attempts,
            pods=pods,
            tokens=tokens,
            records=records,
            create_failures=self._read_create_failures(attempts, pods),
            progress=self._progress,
            bad_input=problem,
        )

    def scrape(self) -> None:
        """Read the progress of the running pods. Called only when no change is pending, as it can take a second."""
        if time.monotonic() >= self._scraped_at + _SCRAPE_S:
            self._progress = scrape(map(read_pod, self._pods.objects()))
            self._scraped_at = time.monotonic()

    def _read_recipe(self, first: bool) -> tuple[Recipe, RunState]:
        """The current recipe. Stores a copy of it in the run.

        Raises `BadInput` for an invalid recipe, and for a store that rejects the copy before the first Job. Afterwards, and for
        a store that may still be starting (that of jobs/adainf-cpu.yaml), raises `StoreUnreachable`.
        """
        try:
            data = self._recipe_file.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {self._recipe_file} ({error.strerror}): apply ConfigMap/adainf-recipe") from None
        digest = sha256(data)
        if self._recipe is None or self._run_state is None or digest != self.recipe_ref.sha256:
            recipe = load_recipe(self._recipe_file)
            run_state = RunState(self._run, recipe)
            uri = self._store_recipe(run_state, data, first)
            self._recipe, self._run_state, self.recipe_ref = recipe, run_state, RecipeRef(uri, digest)
        return self._recipe, self._run_state

    def _store_recipe(self, run_state: RunState, recipe: bytes, first: bool) -> str:
        """Store a copy of the recipe in the run. Returns its URI. Raises as `_read_recipe`."""
        try:
            return run_state.store_recipe(recipe)
        except (AdaInfError, OSError) as error:
            permanent = isinstance(error, BadInput | OSError) or time.monotonic() >= self._began + _STORE_STARTUP_S
            if not (first and permanent):
                raise StoreUnreachable(f"the run's store is unreachable: {error}") from None
            raise BadInput(
                f"the run's store cannot be used: {error}. Fix its address in ConfigMap/adainf-store and its keys in "
                f"Secret/adainf-s3, then delete Job/{self._owner.name} and apply again"
            ) from None

    def _read_templates(self, recipe: Recipe, refresh: bool) -> Mapping[str, Template]:
        """Stage → template. Raises `BadInput` if one that the recipe needs is missing."""
        stages = {name.partition(".")[0] for name in tasks(recipe)}
        if refresh or not stages <= set(self._templates) or time.monotonic() >= self._templates_at + _TEMPLATES_S:
            self._templates = {stage: read_template(stage, self._cronjob(stage)) for stage in sorted(stages)}
            self._templates_at = time.monotonic()
        return self._templates

    def _cronjob(self, stage: str) -> dict[str, object]:
        name = f"adainf-{stage}"
        try:
            return self._api.get(JOBS, "cronjobs", name)
        except ApiStatusError as error:
            if error.status != 404:
                raise
            raise BadInput(
                f"CronJob/{name}, the Job template of stage {stage}, does not exist: apply jobs/adainf.yaml again"
            ) from None

    def _is_startable(self, name: str, task: Task, done: frozenset[str]) -> bool:
        """Whether the controller may create or evaluate an attempt now, which needs the task's progress token."""
        return name not in done and task.after <= done

    def _read_create_failures(self, attempts: tuple[Attempt, ...], pods: tuple[Pod, ...]) -> Mapping[str, str]:
        """Job → why its pods cannot be created. Only Events of the Job controller report that."""
        running = [pod.job for pod in pods if not pod.ended]
        incomplete = {
            attempt.job
            for attempt in attempts
            if attempt.state == "active" and running.count(attempt.job) < (attempt.pods_wanted if attempt.gang else 1)
        }
        if incomplete and time.monotonic() >= self._events_at + _EVENTS_S:
            events = self._api.list(EVENTS, "events", fieldSelector="reason=FailedCreate")["items"]
            self._create_failures = {
                event["regarding"]["name"]: event.get("note", "") for event in events if "regarding" in event
            }
            self._events_at = time.monotonic()
        return {job: note for job, note in self._create_failures.items() if job in incomplete}
