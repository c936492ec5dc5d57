"""Job templates, which are stored as suspended CronJobs, and the Jobs that are created from them."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any, get_args

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.pipeline.load_recipe import DIGEST
from adainf.pipeline.records import canonical_json, sha256
from adainf.pipeline.stages import STAGES
from adainf.recipe import Arm

Object = dict[str, Any]
"""A Kubernetes API object as parsed JSON."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Owner:
    """The controller's own Job, which owns the Jobs of the stages."""

    name: str
    uid: str
    namespace: str


@dataclass(frozen=True)
class RecipeRef:
    """The recipe of a Job: the URI of the copy that its pods read, and the SHA-256 of its bytes."""

    uri: str
    sha256: str


@dataclass(frozen=True)
class Template:
    """The Job template of a stage."""

    stage: str
    name: str
    """Name of the CronJob."""
    after: dict[str | None, tuple[str, ...]]
    """Arm → names of tasks to wait for. The key None is for arms without an entry."""
    start_timeout_s: float
    attempts: int
    """Limit of consecutive attempts without progress."""
    job: Object
    """The CronJob's ``spec.jobTemplate``."""

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the SHA-256 of the Job template."""
        return sha256(canonical_json(self.job))[:12]


def read_template(stage: str, cronjob: Object) -> Template:
    """Parse a CronJob. Raises `BadInput` for an invalid annotation or a template without the stage's container."""
    name = cronjob["metadata"]["name"]
    where = f"CronJob/{name}"
    annotations = cronjob["metadata"].get("annotations", {})
    after: dict[str | None, tuple[str, ...]] = {None: tuple(annotations.get(labels.AFTER, "").split())}
    for key, value in annotations.items():
        if key.startswith(f"{labels.AFTER}."):
            after[key.removeprefix(f"{labels.AFTER}.")] = tuple(value.split())
    for word in {word for words in after.values() for word in words}:
        head, dot, arm = word.partition(".")
        if head not in STAGES or (dot and (head != "pretrain" or arm not in get_args(Arm))):
            raise BadInput(
                f"{where}: annotation {labels.AFTER} names {word!r}, which is not a task: "
                f"use {', '.join(STAGES)} or pretrain.ARM"
            )
    timeout = re.fullmatch(r"([0-9]+)([smh]?)", annotations.get(labels.START_TIMEOUT, "15m"))
    attempts = annotations.get(labels.ATTEMPTS, "4")
    if timeout is None:
        raise BadInput(f"{where}: annotation {labels.START_TIMEOUT} is not a duration: use a value such as 900, 15m or 2h")
    if not attempts.isdecimal() or int(attempts) < 1:
        raise BadInput(f"{where}: annotation {labels.ATTEMPTS} is {attempts!r}: use an integer of at least 1")
    job = cronjob["spec"]["jobTemplate"]
    if stage not in [container["name"] for container in job["spec"]["template"]["spec"]["containers"]]:
        raise BadInput(f"{where} has no container {stage!r}, which its podFailurePolicy refers to: rename its container")
    return Template(stage, name, after, int(timeout[1]) * _UNITS[timeout[2]], int(attempts), job)


def job_name(owner: Owner, task: str, attempt: int) -> str:
    """``OWNER-STAGE[-ARM]-UID4-N``. The uid makes names unique among owners: pods of an earlier one may still exist."""
    return f"{owner.name}-{task.replace('.', '-')}-{owner.uid[:4]}-{attempt}"


def make_job(template: Template, owner: Owner, task: str, attempt: int, recipe: RecipeRef, token: str) -> Object:
    """The Job of one attempt. `token` is the task's current progress token.

    Raises `BadInput` if the owner's name is too long for the names of the pods.
    """
    job = copy.deepcopy(template.job)
    name = job_name(owner, task, attempt)
    width = len(str(int(job["spec"].get("completions") or 1) - 1))
    if len(name) + 1 + width > 63:
        raise BadInput(f"Job/{owner.name}: the pods of {name} would have names of more than 63 characters: shorten the name")
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
        labels.RECIPE: recipe.sha256,
        labels.STARTED_WITH: token,
    }
    # Kueue does not queue a Job that has a controller: it treats it as a part of that one.
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
    given = {"ADAINF_RECIPE": recipe.uri, DIGEST: recipe.sha256, **({"ADAINF_ARM": arm} if arm else {})}
    for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
        kept = [variable for variable in container.get("env", []) if variable["name"] not in given]
        # First: a variable's value can refer only to variables before it.
        container["env"] = [*({"name": key, "value": value} for key, value in given.items()), *kept]
    return {"apiVersion": "batch/v1", "kind": "Job", **job}
