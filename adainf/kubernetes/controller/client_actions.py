"""Actions as calls to the API. Each may be made twice: names are fixed, and what is there already is taken as made."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import assert_never

from adainf.errors import OK, BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.actions import Action, Create, Finish, Mirror, Release, Tell
from adainf.kubernetes.controller.api import EVENTS, JOBS, Api, Refused
from adainf.kubernetes.controller.tasks import Task
from adainf.kubernetes.controller.templates import Object, Owner, Source, Template, make_job
from adainf.pipeline.artifacts import sha256

_NOTE_LETTERS = 1024
"""An Event's note may not be longer."""


class Hands:
    """The owner's part in the cluster. `made` is given each Job as the server has it after a change of ours."""

    def __init__(self, api: Api, owner: Owner, made: Callable[[Object], None], log: Callable[[str], None]) -> None:
        self._api, self._owner, self._made, self._log = api, owner, made, log
        self._told: set[str] = set()
        self._outline = ""

    def apply(self, action: Action, templates: Mapping[str, Template], source: Source) -> None:
        """Raises `BadInput` where the cluster does not take a Job, `Refused` and `Unavailable` as `Api`."""
        match action:
            case Create(task, attempt, token):
                template = templates[task.partition(".")[0]]
                self._create(make_job(template, self._owner, task, attempt, source, token))
            case Release(job):
                self._log(f"{job}: ended by the controller, to release its nodes")
                # The Job controller ends its pods then; the verb delete is not needed.
                released = {"annotations": {labels.RELEASED: "true"}}
                self._patch(job, {"metadata": released, "spec": {"activeDeadlineSeconds": 1}})
            case Mirror(job, progress):
                self._patch(job, {"metadata": {"annotations": {labels.PROGRESS: progress}}})
            case Tell():
                self.tell(action)
            case Finish(code, sentence):
                self.tell(Tell("Finished" if code == OK else "Failed", self._owner.name, sentence, warning=code != OK))
            case _:
                assert_never(action)

    def rehearse(self, task: str, template: Template, source: Source) -> None:
        """Ask the server whether it would take the task's Job. Raises `BadInput` with its reason where it would not."""
        self._post(make_job(template, self._owner, task, 0, source, ""), dry_run=True)

    def outline(self, tasks: Mapping[str, Task], done: frozenset[str]) -> None:
        """Note on the owner what each task waits for, for `adainf status`: what was done before has no Job that tells."""
        waits = {name: None if name in done else sorted(task.after - done) for name, task in tasks.items()}
        outline = json.dumps(waits)
        if outline != self._outline:
            self._patch(self._owner.name, {"metadata": {"annotations": {labels.OUTLINE: outline}}})
            self._outline = outline

    def _create(self, job: Object) -> None:
        name = job["metadata"]["name"]
        made = self._post(job)
        if made is None:
            made = self._api.get(JOBS, "jobs", name)
            there, own = (thing["metadata"].get("annotations", {}).get(labels.TEMPLATE_HASH) for thing in (made, job))
            if there != own:
                raise BadInput(
                    f"Job/{name} is there already, made from another template ({there}, and that of now is {own}): delete it, "
                    f"or delete Job/{self._owner.name} and apply again"
                )
            self._log(f"{name}: is there already and taken over")
        else:
            self._log(f"{name}: started")
        self._made(made)

    def _post(self, job: Object, *, dry_run: bool = False) -> Object | None:
        """The Job as the server has it; None where the name is taken."""
        try:
            return self._api.create(JOBS, "jobs", job, dry_run=dry_run)
        except Refused as error:
            if error.status == 409:
                return None
            stage = job["metadata"]["labels"][labels.STAGE]
            raise BadInput(
                f"the cluster does not take the Job of stage {stage} ({error}): mend CronJob/adainf-{stage}, or the quota or "
                "policy that is named"
            ) from None

    def _patch(self, job: str, change: Object) -> None:
        try:
            self._made(self._api.patch(JOBS, "jobs", job, change))
        except Refused as error:
            if error.status != 404:  # somebody has deleted it; the next look shows that
                raise

    def tell(self, event: Tell) -> None:
        """Leave an Event on the owner and a line in the log, once for its reason and subject."""
        told = f"{self._owner.uid} {event.reason} {event.subject}".encode()
        name = f"{self._owner.name}.{sha256(told)[:16]}"
        if name in self._told:
            return
        self._log(event.note)
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
            "note": event.note[:_NOTE_LETTERS],
            "type": "Warning" if event.warning else "Normal",
        }
        try:
            self._api.create(EVENTS, "events", body)
        except Refused as error:
            if error.status != 409:  # told before this process was started
                raise
        self._told.add(name)
