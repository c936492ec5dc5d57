"""Executes actions as API calls. All are idempotent: names are deterministic, and an existing object counts as created."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import assert_never

from adainf.errors import OK, BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.actions import Action, Create, EmitEvent, Finish, RecordProgress, Terminate
from adainf.kubernetes.controller.api import EVENTS, JOBS, Api, ApiStatusError
from adainf.kubernetes.controller.scrape import duration
from adainf.kubernetes.controller.templates import Object, Owner, RecipeRef, Template, make_job
from adainf.pipeline.records import sha256

_MAX_NOTE = 1024
"""Maximum length of an Event's note, in characters."""
_REPEAT_S = 1800
"""Interval at which the Event of a lasting condition is repeated. The cluster keeps an Event for an hour."""


class Executor:
    """Executes the actions of one owner. `written` receives each Job as the server stores it after a write."""

    def __init__(self, api: Api, owner: Owner, written: Callable[[Object], None], log: Callable[[str], None]) -> None:
        self._api, self._owner, self._written, self._log = api, owner, written, log
        self._emitted: set[str] = set()
        self._published: dict[str, str] = {}

    def apply(self, action: Action, templates: Mapping[str, Template], recipe: RecipeRef) -> None:
        """Execute one action. Raises `BadInput` if the API server rejects a Job, and the errors of `Api`."""
        match action:
            case Create(task, attempt, token):
                template = templates[task.partition(".")[0]]
                self._create(make_job(template, self._owner, task, attempt, recipe, token))
            case Terminate(job):
                self._log(f"{job}: terminated, to free its nodes")
                # The Job controller deletes the pods at the deadline, so the Role needs no verb delete.
                metadata = {"annotations": {labels.RELEASED: "true"}}
                self._patch(job, {"metadata": metadata, "spec": {"activeDeadlineSeconds": 1}})
            case RecordProgress(job, progress):
                self._patch(job, {"metadata": {"annotations": {labels.PROGRESS: progress}}})
            case EmitEvent():
                self.emit_event(action)
            case Finish(code, message):
                reason = "Finished" if code == OK else "Failed"
                self.emit_event(EmitEvent(reason, self._owner.name, message, warning=code != OK))
            case _:
                assert_never(action)

    def dry_run(self, task: str, template: Template, recipe: RecipeRef) -> None:
        """Create the task's Job with `dryRun=All`. Raises `BadInput` with the reason if the API server rejects it."""
        self._post(make_job(template, self._owner, task, 0, recipe, ""), dry_run=True)

    def publish(self, summary: Mapping[str, object]) -> None:
        """Annotate the owner with JSON, for `adainf status`. The keys are annotations."""
        changed = {key: text for key, value in summary.items() if self._published.get(key) != (text := json.dumps(value))}
        if changed:
            self._patch(self._owner.name, {"metadata": {"annotations": changed}})
            self._published |= changed

    def _create(self, job: Object) -> None:
        name = job["metadata"]["name"]
        stored = self._post(job)
        if stored is None:
            stored = self._api.get(JOBS, "jobs", name)
            theirs, ours = (thing["metadata"].get("annotations", {}).get(labels.TEMPLATE_HASH) for thing in (stored, job))
            if theirs != ours:
                raise BadInput(
                    f"Job/{name} already exists with another template ({theirs}; the current one is {ours}): delete it, "
                    f"or delete Job/{self._owner.name} and apply again"
                )
            self._log(f"{name}: already exists; adopted")
        else:
            self._log(f"{name}: created")
        self._written(stored)

    def _post(self, job: Object, *, dry_run: bool = False) -> Object | None:
        """The Job as the server stores it, or None if the name exists."""
        try:
            return self._api.create(JOBS, "jobs", job, dry_run=dry_run)
        except ApiStatusError as error:
            if error.status == 409:
                return None
            stage = job["metadata"]["labels"][labels.STAGE]
            raise BadInput(
                f"the API server rejects the Job of stage {stage} ({error}): fix CronJob/{self._owner.name}-{stage}, or the "
                "quota or policy that the message names"
            ) from None

    def _patch(self, job: str, change: Object) -> None:
        try:
            self._written(self._api.patch(JOBS, "jobs", job, change))
        except ApiStatusError as error:
            if error.status != 404:  # deleted by a user; the next snapshot shows that
                raise

    def emit_event(self, event: EmitEvent) -> None:
        """Emit an Event on the owner and log its note: once, or each half hour for a condition that lasts."""
        key, note = f"{self._owner.uid} {event.reason} {event.subject}", event.note
        if event.since is not None:
            repeated = int(max(self._api.now() - event.since, 0) // _REPEAT_S)
            key += f" {event.since:.0f} {repeated}"
            note += f" (for {duration(repeated * _REPEAT_S)}, reported {repeated + 1} times)" if repeated else ""
        name = f"{self._owner.name}.{sha256(key.encode())[:16]}"
        if name in self._emitted:
            return
        self._log(note)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._owner.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": labels.CONTROLLER,
            "reportingInstance": socket.gethostname(),
            "regarding": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": self._owner.name,
                "namespace": self._owner.namespace,
                "uid": self._owner.uid,
            },
            "action": "Reconcile",
            "reason": event.reason,
            "note": note[:_MAX_NOTE],
            "type": "Warning" if event.warning else "Normal",
        }
        try:
            self._api.create(EVENTS, "events", body)
        except ApiStatusError as error:
            if error.status != 409:  # emitted by an earlier process
                raise
        self._emitted.add(name)
