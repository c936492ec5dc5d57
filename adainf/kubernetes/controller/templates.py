"""A suspended CronJob as a stored Job template, and the Job of one attempt that is made of it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.pipeline.artifacts import canonical_json, sha256

Object = dict[str, Any]
"""An object of the Kubernetes API, as its JSON."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Owner:
    """The Job that the controller runs in, and all that belongs to it."""

    name: str
    uid: str
    namespace: str


@dataclass(frozen=True)
class Source:
    """The recipe that a Job is made for: where the copy lies that its pods read, and the SHA-256 of its bytes."""

    uri: str
    sha256: str


@dataclass(frozen=True)
class Template:
    """What a CronJob says of its stage."""

    stage: str
    after: dict[str | None, tuple[str, ...]]
    """Names of tasks to wait for; by arm where arms differ, else under None."""
    start_timeout_s: float
    attempts: int
    """How many may fail in a row without any progress."""
    job: Object
    """Its ``spec.jobTemplate``."""

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the SHA-256 of the Job template."""
        return sha256(canonical_json(self.job))[:12]


def read_template(stage: str, cronjob: Object) -> Template:
    """Raises `BadInput` for an annotation that cannot be read, or a template without the stage's container."""
    where = f"CronJob/{cronjob['metadata']['name']}"
    annotations = cronjob["metadata"].get("annotations", {})
    after: dict[str | None, tuple[str, ...]] = {None: tuple(annotations.get(labels.AFTER, "").split())}
    for key, value in annotations.items():
        if key.startswith(f"{labels.AFTER}."):
            after[key.removeprefix(f"{labels.AFTER}.")] = tuple(value.split())
    timeout = re.fullmatch(r"([0-9]+)([smh]?)", annotations.get(labels.START_TIMEOUT, "15m"))
    attempts = annotations.get(labels.ATTEMPTS, "4")
    if timeout is None:
        raise BadInput(f"{where}: annotation {labels.START_TIMEOUT} is no time; write seconds, or 15m or 2h")
    if not attempts.isdecimal() or int(attempts) < 1:
        raise BadInput(f"{where}: annotation {labels.ATTEMPTS} is {attempts!r}; write a number from 1 on")
    job = cronjob["spec"]["jobTemplate"]
    if stage not in [container["name"] for container in job["spec"]["template"]["spec"]["containers"]]:
        raise BadInput(f"{where} has no container {stage!r}, by which exit codes are told apart; name its container so")
    return Template(stage, after, int(timeout[1]) * _UNITS[timeout[2]], int(attempts), job)


def job_name(owner: Owner, task: str, attempt: int) -> str:
    """``OWNER-STAGE[-ARM]-UID4-N``; the uid, so that no name is that of a pod which an earlier owner left behind."""
    return f"{owner.name}-{task.replace('.', '-')}-{owner.uid[:4]}-{attempt}"


def make_job(template: Template, owner: Owner, task: str, attempt: int, source: Source, token: str) -> Object:
    """The Job of one attempt; `token` is the task's progress before it.

    Raises `BadInput` where the owner's name is too long for the names of its pods, or where the template sets what the
    launcher decides.
    """
    job = copy.deepcopy(template.job)
    name = job_name(owner, task, attempt)
    width = len(str(int(job["spec"].get("completions") or 1) - 1))
    if len(name) + 1 + width > 63:
        raise BadInput(f"Job/{owner.name}: the pods of {name} would have names of more than 63 letters; give it a shorter name")
    arm = task.partition(".")[2]
    named = {
        "app.kubernetes.io/name": "adainf",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/component": template.stage,
        "app.kubernetes.io/part-of": "adainf",
        "app.kubernetes.io/managed-by": "adainf",
        labels.RUN: owner.name,
        labels.STAGE: template.stage,
        labels.ATTEMPT: str(attempt),
        **({labels.ARM: arm} if arm else {}),
    }
    metadata = job.setdefault("metadata", {})
    pod = job["spec"]["template"]
    for labelled in (metadata, pod.setdefault("metadata", {})):
        labelled["labels"] = {**labelled.get("labels", {}), **named}
    metadata["name"] = name
    metadata["annotations"] = {
        **metadata.get("annotations", {}),
        labels.TEMPLATE_HASH: template.hash,
        labels.RECIPE: source.sha256,
        labels.STARTED_WITH: token,
    }
    # No controller: Kueue takes a Job that another Job controls for a part of that one, and does not queue it.
    metadata["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": owner.name,
            "uid": owner.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }
    ]
    given = {"ADAINF_RECIPE": source.uri, **({"ADAINF_ARM": arm} if arm else {})}
    for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
        kept = [variable for variable in container.get("env", []) if variable["name"] not in given]
        # First, as only what stands before a variable may be used in its value.
        container["env"] = [*({"name": key, "value": value} for key, value in given.items()), *kept]
    return {"apiVersion": "batch/v1", "kind": "Job", **job}
