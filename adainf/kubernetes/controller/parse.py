"""Parses API objects: Jobs into attempts, pods, and Events of the Job controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.state import Attempt, AttemptState, Pod
from adainf.kubernetes.controller.templates import Object, Owner
from adainf.pipeline.graph import task_name

_STATES: dict[str, AttemptState] = {
    "Failed": "failed",
    "Complete": "complete",
    "FailureTarget": "ending",
    "SuccessCriteriaMet": "ending",
}
"""Condition of a Job → state of the attempt. The first condition that is true counts."""

_EVIDENCE_S = 600
"""Validity of a `FailedCreate` Event. The Job controller retries at least each minute, and reports at least each five."""


def seconds(timestamp: str) -> float:
    """An RFC 3339 time as seconds since 1970."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def is_child(job: Object, owner: Owner) -> bool:
    """Whether this owner created the Job. Jobs of an earlier owner of the same name may still be terminating."""
    return any(reference["uid"] == owner.uid for reference in job["metadata"].get("ownerReferences", []))


def read_attempt(job: Object) -> Attempt:
    """Parse a child Job."""
    metadata, spec = job["metadata"], job["spec"]
    label, note = metadata.get("labels", {}), metadata.get("annotations", {})
    status = job.get("status", {})
    created = seconds(status.get("startTime") or metadata["creationTimestamp"])
    conditions = {condition["type"]: condition for condition in status.get("conditions") or [] if condition["status"] == "True"}
    parallelism, suspended = int(spec.get("parallelism", 1)), spec.get("suspend", False)
    state, condition = _state(conditions)
    return Attempt(
        job=metadata["name"],
        task=task_name(label[labels.STAGE], label.get(labels.ARM)),
        number=int(label[labels.ATTEMPT]),
        created=created,
        state=state,
        since=seconds(condition["lastTransitionTime"]) if condition else created,
        uid=metadata.get("uid", ""),
        reason=condition.get("reason", ""),
        message=condition.get("message", ""),
        grace_s=spec["template"]["spec"].get("terminationGracePeriodSeconds", 30),
        gang=labels.GANG in spec["template"]["metadata"].get("labels", {}),
        pods_wanted=0
        if suspended
        else min(parallelism, int(spec.get("completions", parallelism)) - status.get("succeeded", 0)),
        pods_ready=status.get("ready", 0),
        template_hash=note.get(labels.TEMPLATE_HASH, ""),
        recipe_sha256=note.get(labels.RECIPE, ""),
        started_with=note.get(labels.STARTED_WITH, ""),
        progress=note.get(labels.PROGRESS, ""),
        stop_requested=labels.RELEASED in note,
    )


def _state(conditions: dict[str, Object]) -> tuple[AttemptState, Object]:
    for kind, state in _STATES.items():
        if kind in conditions:
            return state, conditions[kind]
    return "active", {}


def read_pod(pod: Object) -> Pod:
    """Parse a pod of a child Job."""
    metadata, status = pod["metadata"], pod.get("status", {})
    label = metadata.get("labels", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    waiting, message = _waiting(status, containers)
    return Pod(
        name=metadata["name"],
        job=label.get(labels.JOB_NAME, ""),
        index=int(metadata.get("annotations", {}).get(labels.INDEX, label.get(labels.INDEX, "0"))),
        phase=status.get("phase", "Pending"),
        created=seconds(metadata["creationTimestamp"]),
        deleted=_deleted(metadata, status),
        node=pod.get("spec", {}).get("nodeName", ""),
        ip=status.get("podIP", ""),
        waiting=waiting,
        message=message,
        oom=any(container.get("state", {}).get("terminated", {}).get("reason") == "OOMKilled" for container in containers),
    )


def _deleted(metadata: Object, status: Object) -> float | None:
    """`Pod.deleted`. On an unreachable node the node controller sets Ready to False, while ContainersReady stays True."""
    if "deletionTimestamp" not in metadata:
        return None
    ready = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    unreachable = (ready.get("Ready"), ready.get("ContainersReady")) == ("False", "True")
    return seconds(metadata["deletionTimestamp"]) - (metadata.get("deletionGracePeriodSeconds", 0) if unreachable else 0)


def _waiting(status: Object, containers: list[Object]) -> tuple[str, str]:
    """Reason and message of a pod that does not start; empty if it does."""
    for container in containers:
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return waiting["reason"], waiting.get("message", "")
    for condition in status.get("conditions", []):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return condition.get("reason", ""), condition.get("message", "")
    return "", ""


def create_failures(events: Iterable[Object], attempts: Iterable[Attempt], pods: Sequence[Pod], now: float) -> dict[str, str]:
    """Job → why the API server rejects its pods now, from `FailedCreate` Events: the only place that shows it.

    An Event lives for an hour. It counts only if it is about this attempt, which lacks pods, and if it is younger than the
    attempt's newest pod and ten minutes.
    """
    latest: dict[str, tuple[float, str]] = {}
    for event in events:
        seen = (_event_time(event), event.get("note", ""))
        uid = event.get("regarding", {}).get("uid", "")
        latest[uid] = max(seen, latest.get(uid, seen))
    found = {}
    for attempt in attempts:
        own = [pod for pod in pods if pod.job == attempt.job]
        lacks_pods = attempt.state == "active" and sum(not pod.ended for pod in own) < attempt.pods_wanted
        time, note = latest.get(attempt.uid, (0.0, ""))
        if lacks_pods and time >= max([attempt.created, now - _EVIDENCE_S, *(pod.created for pod in own)]):
            found[attempt.job] = note
    return found


def _event_time(event: Object) -> float:
    """When the Event was last seen. The Job controller writes Events of the old API, with `deprecatedLastTimestamp`."""
    times = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return next((seconds(time) for time in times if time), 0.0)
