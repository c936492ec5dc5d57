"""The Job controller. Each behaviour is a row of docs/job-semantics.md."""

from __future__ import annotations

import secrets
from copy import deepcopy
from typing import Any

from tests.cluster import indexes
from tests.cluster.admission import admit
from tests.cluster.clock import Clock, timestamp
from tests.cluster.defaults import fill
from tests.cluster.events import record
from tests.cluster.kinds import kind_of
from tests.cluster.statuses import Refusal
from tests.cluster.store import Object, Store
from tests.cluster.tally import FINALIZER, INDEX, Tally, index_of

_RETRY_S = 1
TERMINAL = ("Succeeded", "Failed")


def owner(pod: Object) -> str:
    """Uid of the owner that controls an object."""
    return next((each["uid"] for each in pod["metadata"].get("ownerReferences", []) if each.get("controller")), "")


def condition(each: Object, kind: str) -> Object | None:
    """The condition of this type if it is True."""
    found = (c for c in each.get("status", {}).get("conditions", []) if c["type"] == kind and c["status"] == "True")
    return next(found, None)


class JobController:
    """Level-triggered: `sync` reconciles all Jobs."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._tallies: dict[str, Tally] = {}
        self._refused: set[str] = set()
        """Jobs whose last pod was rejected."""

    def sync(self) -> None:
        jobs = self._store.list("jobs")
        pods = self._store.list("pods")
        for job in jobs:
            self._sync(job, [pod for pod in pods if owner(pod) == job["metadata"]["uid"]])
        known = {job["metadata"]["uid"] for job in jobs if "deletionTimestamp" not in job["metadata"]}
        for pod in pods:
            if owner(pod) not in known:
                self._release(pod)

    def _sync(self, job: Object, pods: list[Object]) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        if (
            "deletionTimestamp" in job["metadata"]
            or spec.get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller"
        ):
            return
        ended = condition(job, "Complete") or condition(job, "Failed")
        if ended:
            after_s = spec.get("ttlSecondsAfterFinished")
            if after_s is not None and self._clock.due((uid, "ended"), after_s):
                self._store.delete("jobs", job)
            return
        tally = self._tallies.setdefault(uid, Tally())
        over = [pod for pod in pods if self._is_over(spec, pod)]
        for pod in over:
            tally.count(job, pod)
            self._release(pod)
        alive = [pod for pod in pods if pod not in over]
        leaving = [pod for pod in pods if "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") not in TERMINAL]
        status: dict[str, Any] = {"conditions": [], **job.get("status", {})}
        verdict = condition(job, "FailureTarget") or condition(job, "SuccessCriteriaMet") or self._verdict(job, tally, status)
        if verdict:
            self._add(status, verdict)
            for pod in alive:
                self._delete(pod)
            if not alive and not leaving:
                self._end(job, status, verdict)
        elif spec["suspend"]:
            for pod in alive:
                self._delete(pod)
            self._suspend(job, status)
        else:
            self._resume(job, status)
            self._create(job, tally, alive)
        self._report(job, status, tally)

    def _is_over(self, spec: dict[str, Any], pod: Object) -> bool:
        """Whether a pod counts as ended. Without `podReplacementPolicy: Failed` a terminating pod does, too."""
        leaving = "deletionTimestamp" in pod["metadata"] and spec["podReplacementPolicy"] != "Failed"
        return pod["status"].get("phase") in TERMINAL or leaving

    def _verdict(self, job: Object, tally: Tally, status: dict[str, Any]) -> Object | None:
        """FailureTarget or SuccessCriteriaMet, as soon as the outcome is final."""
        spec = job["spec"]
        wanted, per_index = spec.get("completions"), "backoffLimitPerIndex" in spec
        most = spec.get("maxFailedIndexes")
        if tally.failed_job:
            return _condition("FailureTarget", "PodFailurePolicy", tally.failed_job)
        if tally.failed > spec["backoffLimit"]:
            return _condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        limit_s = spec.get("activeDeadlineSeconds")
        if limit_s is not None and "startTime" in status and self._clock.due((job["metadata"]["uid"], "started"), limit_s):
            return _condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
        if most is not None and len(tally.failed_indexes) > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return _condition("FailureTarget", "MaxFailedIndexesExceeded", message)
        for index, rule in enumerate(spec.get("successPolicy", {}).get("rules", [])):
            among = indexes.parse(rule["succeededIndexes"]) if "succeededIndexes" in rule else set(range(wanted))
            done = among & tally.succeeded
            if len(done) >= rule.get("succeededCount", len(among)):
                return _condition("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {index}")
        if wanted is not None and len(tally.succeeded) >= wanted:
            return _condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
        if per_index and tally.failed_indexes and len(tally.succeeded) + len(tally.failed_indexes) >= wanted:
            return _condition("FailureTarget", "FailedIndexes", "Job has failed indexes")
        return None

    def _end(self, job: Object, status: dict[str, Any], verdict: Object) -> None:
        complete = verdict["type"] == "SuccessCriteriaMet"
        self._add(status, _condition("Complete" if complete else "Failed", verdict["reason"], verdict["message"]))
        if complete:
            status["completionTime"] = timestamp()
        self._clock.start((job["metadata"]["uid"], "ended"))
        self._emit_event(
            job,
            not complete,
            "Completed" if complete else verdict["reason"],
            "Job completed" if complete else verdict["message"],
        )

    def _suspend(self, job: Object, status: dict[str, Any]) -> None:
        if not _is_true(status, "Suspended"):
            self._add(status, _condition("Suspended", "JobSuspended", "Job suspended"))
            self._emit_event(job, False, "Suspended", "Job suspended")
        status.pop("startTime", None)
        self._clock.stop((job["metadata"]["uid"], "started"))

    def _resume(self, job: Object, status: dict[str, Any]) -> None:
        if _is_true(status, "Suspended"):
            self._add(status, _condition("Suspended", "JobResumed", "Job resumed", "False"))
            self._emit_event(job, False, "Resumed", "Job resumed")
        if "startTime" not in status:
            status["startTime"] = timestamp()
            self._clock.start((job["metadata"]["uid"], "started"))

    def _create(self, job: Object, tally: Tally, alive: list[Object]) -> None:
        """Create pods up to `parallelism`, each after its back-off."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        if uid in self._refused and not self._clock.due((uid, "refused"), _RETRY_S):
            return
        self._refused.discard(uid)
        free = spec["parallelism"] - len(alive)
        if spec["completionMode"] == "Indexed":
            taken = {index_of(pod) for pod in alive} | tally.succeeded | tally.failed_indexes
            waiting: list[int | None] = [index for index in range(spec["completions"]) if index not in taken]
        else:
            left = spec.get("completions", spec["parallelism"]) - len(tally.succeeded) - len(alive)
            waiting = [None] * max(left, 0)
        for index in waiting[: max(free, 0)]:
            key, after_s = tally.backoff(job, index)
            if not self._clock.due(key, after_s):
                continue
            if not self._create_pod(job, index):
                self._clock.stop((uid, "refused"))
                self._refused.add(uid)
                return

    def _create_pod(self, job: Object, index: int | None) -> bool:
        kind = kind_of("", "pods")
        assert kind
        metadata, template = job["metadata"], job["spec"]["template"]
        base = metadata["name"] if index is None else f"{metadata['name']}-{index}"
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        own = template.get("metadata", {})
        new: Object = {
            "apiVersion": "v1", "kind": "Pod", "spec": deepcopy(template["spec"]), "status": {"phase": "Pending"},
            "metadata": {
                "namespace": metadata["namespace"], "name": f"{base}-"[:58] + secrets.token_hex(3)[:5],
                "labels": dict(own.get("labels", {})), "annotations": dict(own.get("annotations", {})),
                "finalizers": [FINALIZER],
                "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
            },
        }  # fmt: skip
        if index is not None:
            new["metadata"]["annotations"][INDEX] = new["metadata"]["labels"][INDEX] = str(index)
            new["spec"]["hostname"] = base
            field = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
            for container in [*new["spec"]["containers"], *new["spec"].get("initContainers", [])]:
                container["env"] = [*container.get("env", []), {"name": "JOB_COMPLETION_INDEX", "valueFrom": field}]
        try:
            fill("pods", new)
            admit(self._store, kind, new, None)
        except Refusal as refusal:
            self._emit_event(job, True, "FailedCreate", f"Error creating: {refusal.message}")
            return False
        self._store.create(kind, metadata["namespace"], new)
        self._emit_event(job, False, "SuccessfulCreate", f"Created pod: {new['metadata']['name']}")
        return True

    def _delete(self, pod: Object) -> None:
        if "deletionTimestamp" not in pod["metadata"]:
            self._store.delete("pods", pod)

    def _release(self, pod: Object) -> None:
        """Remove the finalizer, so that the pod can be deleted."""
        if FINALIZER in pod["metadata"].get("finalizers", []):
            self._store.edit("pods", pod, lambda new: new["metadata"]["finalizers"].remove(FINALIZER))

    def _report(self, job: Object, status: dict[str, Any], tally: Tally) -> None:
        pods = [pod for pod in self._store.list("pods", job["metadata"]["namespace"]) if owner(pod) == job["metadata"]["uid"]]
        running = [pod for pod in pods if pod["status"].get("phase") not in TERMINAL]
        leaving = [pod for pod in running if "deletionTimestamp" in pod["metadata"]]
        status |= {
            "active": len(running) - len(leaving), "terminating": len(leaving), "succeeded": len(tally.succeeded),
            "failed": tally.failed, "ready": len([pod for pod in running if condition(pod, "Ready")]),
            "uncountedTerminatedPods": {},
        }  # fmt: skip
        if job["spec"]["completionMode"] == "Indexed":
            status["completedIndexes"] = indexes.text(each for each in tally.succeeded if isinstance(each, int))
            if "backoffLimitPerIndex" in job["spec"]:
                status["failedIndexes"] = indexes.text(tally.failed_indexes)
        kept = {
            name: value
            for name, value in status.items()
            if value or name in ("terminating", "ready", "uncountedTerminatedPods")
        }
        self._store.edit("jobs", job, lambda new: new.update(status=kept), status=True)

    def _add(self, status: dict[str, Any], new: Object) -> None:
        others = [each for each in status["conditions"] if each["type"] != new["type"]]
        if len(others) == len(status["conditions"]) or new["type"] == "Suspended":
            status["conditions"] = [*others, new]

    def _emit_event(self, job: Object, warning: bool, reason: str, message: str) -> None:
        record(self._store, job, warning, reason, message, "job-controller")


def _condition(kind: str, reason: str, message: str, status: str = "True") -> Object:
    now = timestamp()
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": now,
    }


def _is_true(status: dict[str, Any], kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in status["conditions"])
