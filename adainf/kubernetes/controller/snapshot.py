"""Looks at everything at once: the recipe's file, templates, Jobs, pods and the run's store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from adainf.errors import AdaInfError, BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, PODS, Api, Refused, Unavailable
from adainf.kubernetes.controller.informer import Mirror
from adainf.kubernetes.controller.parse import is_child, read_attempt, read_pod
from adainf.kubernetes.controller.run_state import Ledger, done_tasks
from adainf.kubernetes.controller.scrape import scrape
from adainf.kubernetes.controller.state import Attempt, Observed, Pod
from adainf.kubernetes.controller.tasks import Task, tasks_of
from adainf.kubernetes.controller.templates import Owner, Source, Template, read_template
from adainf.pipeline.artifacts import Run, sha256
from adainf.pipeline.graph import tasks
from adainf.pipeline.load_recipe import load_recipe
from adainf.recipe import Recipe

_TEMPLATES_S = 60
_EVENTS_S = 15
_SCRAPE_S = 5
_STORE_S = 900
"""A store that has never answered may be starting for so long."""


class StoreSilent(Unavailable):
    """The run's store does not answer. Unlike an API server's silence, this can be told in the cluster."""


class Lookout:
    """`wake` is called when something has changed in the cluster."""

    def __init__(self, api: Api, owner: Owner, run: Run, recipe_file: Path, wake: Callable[[], None]) -> None:
        self._api, self._owner, self._run, self._recipe_file = api, owner, run, recipe_file
        selector = f"{labels.RUN}={owner.name}"
        self.jobs = Mirror(api, JOBS, "jobs", selector, wake)
        self._pods = Mirror(api, PODS, "pods", selector, wake)
        self.source = Source("", "")
        self._recipe: Recipe | None = None
        self._ledger: Ledger | None = None
        self._templates: dict[str, Template] = {}
        self._began = time.monotonic()
        self._templates_at = self._events_at = self._scraped_at = float("-inf")
        self._refused: dict[str, str] = {}
        self._progress: dict[str, str] = {}

    def look(self, *, fresh: bool = False) -> Observed:
        """All that is there now; with `fresh`, the templates of this moment and not of the last minute.

        Bad input is in what is seen, so that all ends are decided in one place. Raises `Unavailable` while the API does not
        answer, `StoreSilent` while the store does not, and `Refused`.
        """
        # Jobs before the store: of a Job that is seen to have ended, the artifacts are seen, too.
        attempts = tuple(read_attempt(job) for job in self.jobs.objects() if is_child(job, self._owner))
        known = {attempt.job for attempt in attempts}
        pods = tuple(pod for pod in map(read_pod, self._pods.objects()) if pod.job in known)
        try:
            recipe, ledger = self._read_recipe(first=not attempts)
            templates = self._read_templates(recipe, fresh)
            tasks = tasks_of(recipe, templates)
        except BadInput as error:
            return Observed(time.time(), {}, {}, "", frozenset(), attempts, wrong=str(error))
        try:
            finished, wrong = ledger.finished()
            done = done_tasks(tasks, finished)
            tokens = {name: ledger.token(task, finished) for name, task in tasks.items() if self._starts(name, task, done)}
            ended = [attempt for attempt in attempts if attempt.state != "active" and attempt.task not in done]
            records = {attempt.job: ledger.records(attempt.job, attempt.state != "ending") for attempt in ended}
        except (AdaInfError, OSError) as error:
            raise StoreSilent(f"the run's store does not answer: {error}") from None
        return Observed(
            now=time.time(),
            tasks=tasks,
            templates=templates,
            recipe_sha256=self.source.sha256,
            done=done,
            attempts=attempts,
            pods=pods,
            tokens=tokens,
            records=records,
            refused=self._read_refused(attempts, pods),
            progress=self._progress,
            wrong=wrong,
        )

    def scrape(self) -> None:
        """Ask the running pods how far they are; for a moment in which nothing else is to be done."""
        if time.monotonic() >= self._scraped_at + _SCRAPE_S:
            self._progress = scrape(map(read_pod, self._pods.objects()))
            self._scraped_at = time.monotonic()

    def _read_recipe(self, first: bool) -> tuple[Recipe, Ledger]:
        """The recipe as it is now, of which a copy is in the run.

        Raises `BadInput` for the recipe, and for what the store refuses if no Job was started: later that is an outage,
        `StoreSilent`. So is for a while a store that cannot be reached at first: that of jobs/adainf-cpu.yaml is starting, too.
        """
        try:
            data = self._recipe_file.read_bytes()
        except OSError as error:
            raise BadInput(f"{self._recipe_file} cannot be read ({error.strerror}): apply ConfigMap/adainf-recipe") from None
        digest = sha256(data)
        if self._recipe is None or self._ledger is None or digest != self.source.sha256:
            recipe = load_recipe(self._recipe_file)
            ledger = Ledger(self._run, recipe)
            uri = self._keep(ledger, data, first)
            self._recipe, self._ledger, self.source = recipe, ledger, Source(uri, digest)
        return self._recipe, self._ledger

    def _keep(self, ledger: Ledger, recipe: bytes, first: bool) -> str:
        """The address of a copy of the recipe in the run; raises as `_read_recipe`."""
        try:
            return ledger.keep_recipe(recipe)
        except (AdaInfError, OSError) as error:
            refused = isinstance(error, BadInput | OSError) or time.monotonic() >= self._began + _STORE_S
            if not (first and refused):
                raise StoreSilent(f"the run's store does not answer: {error}") from None
            raise BadInput(
                f"the run's store cannot be used: {error}. Its address is in ConfigMap/adainf-store, its keys are in "
                "Secret/adainf-s3; mend them, then delete the Job and apply again"
            ) from None

    def _read_templates(self, recipe: Recipe, fresh: bool) -> Mapping[str, Template]:
        """By stage. Raises `BadInput` where one that the recipe needs is missing."""
        stages = {name.partition(".")[0] for name in tasks(recipe)}
        if fresh or not stages <= set(self._templates) or time.monotonic() >= self._templates_at + _TEMPLATES_S:
            self._templates = {stage: read_template(stage, self._cronjob(stage)) for stage in sorted(stages)}
            self._templates_at = time.monotonic()
        return self._templates

    def _cronjob(self, stage: str) -> dict[str, object]:
        name = f"adainf-{stage}"
        try:
            return self._api.get(JOBS, "cronjobs", name)
        except Refused as error:
            if error.status != 404:
                raise
            raise BadInput(f"CronJob/{name}, the template of stage {stage}, is missing: apply jobs/adainf.yaml again") from None

    def _starts(self, name: str, task: Task, done: frozenset[str]) -> bool:
        """Whether an attempt may be made or judged now, for which the task's progress must be known."""
        return name not in done and task.after <= done

    def _read_refused(self, attempts: tuple[Attempt, ...], pods: tuple[Pod, ...]) -> Mapping[str, str]:
        """Why Jobs without the pods that they want do not get them: only Events of the Job controller say so."""
        living = [pod.job for pod in pods if not pod.ended]
        short = {
            attempt.job
            for attempt in attempts
            if attempt.state == "active" and living.count(attempt.job) < (attempt.pods_wanted if attempt.gang else 1)
        }
        if short and time.monotonic() >= self._events_at + _EVENTS_S:
            events = self._api.list(EVENTS, "events", fieldSelector="reason=FailedCreate")["items"]
            self._refused = {event["regarding"]["name"]: event.get("note", "") for event in events if "regarding" in event}
            self._events_at = time.monotonic()
        return {job: note for job, note in self._refused.items() if job in short}
