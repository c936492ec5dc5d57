"""The state of a run as the cluster reports it, for `adainf status` and `adainf wait`. Needs no access to the run's store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, PODS, Api, ApiStatusError
from adainf.kubernetes.controller.parse import is_child, read_attempt, read_pod, seconds
from adainf.kubernetes.controller.pods import FIXES, GRACE_S
from adainf.kubernetes.controller.state import Attempt, Problem
from adainf.kubernetes.controller.templates import Object, Owner
from adainf.pipeline.stages import STAGES

_GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class TaskView:
    """One task: its latest attempt, and what keeps it from making progress."""

    name: str
    attempt: Attempt | None
    state: str
    waits_for: tuple[str, ...] = ()
    """Of a task without an attempt: the tasks it waits for."""
    condition: Problem | None = None
    """The worst current condition, as the controller reported it last."""
    gpu_s: float = 0
    """GPU time of all attempts."""

    @property
    def pods(self) -> str:
        """Ready and wanted pods of an active attempt, as ``2/4``."""
        active = self.attempt is not None and self.attempt.state == "active"
        return f"{self.attempt.pods_ready}/{self.attempt.pods_wanted}" if self.attempt and active else ""


@dataclass(frozen=True)
class Overview:
    """The state of a run."""

    now: float
    tasks: tuple[TaskView, ...]
    exit_code: int | None
    """0 if it is complete, 1 if it has failed, None while it runs."""
    message: str
    condition: Problem | None = None
    """Of the pipeline: its store, its recipe, or the controller's pod."""


def read_overview(api: Api, name: str) -> Overview:
    """Read the state of the run `name`. Raises `BadInput` if the controller's Job does not exist, and `Unavailable`."""
    job = _controller_job(api, name)
    owner = Owner(name, job["metadata"]["uid"], api.namespace)
    listed = _list(api, JOBS, "jobs", labelSelector=f"{labels.RUN}={name}")
    jobs = {child["metadata"]["name"]: child for child in listed if is_child(child, owner)}
    attempts = sorted(
        map(read_attempt, jobs.values()), key=lambda a: (list(STAGES).index(a.task.partition(".")[0]), a.task, a.number)
    )
    latest = {attempt.task: attempt for attempt in attempts}
    now = api.now()
    exit_code, message = _outcome(api, job)
    waits: dict[str, list[str] | None] = _annotation(job, labels.TASK_SUMMARY)
    reported = (
        {} if exit_code is not None else {key: Problem(*each) for key, each in _annotation(job, labels.CONDITIONS).items()}
    )
    tasks = []
    for task in dict.fromkeys([*waits, *latest]):
        attempt = latest.get(task)
        gpu_s = sum(_gpu_seconds(jobs[each.job], now) for each in attempts if each.task == task)
        state = _state(attempt, jobs[attempt.job]) if attempt else _without_attempt(waits[task])
        waits_for = () if attempt else tuple(waits[task] or ())
        tasks.append(TaskView(task, attempt, state, waits_for, reported.get(task), gpu_s))
    condition = None if exit_code is not None else _controller_condition(api, job, now) or reported.get("")
    return Overview(now, tuple(tasks), exit_code, message, condition)


def _annotation(job: Object, key: str) -> dict[str, Any]:
    """A JSON object that the controller published. Empty before its first iteration."""
    found: dict[str, Any] = json.loads(job["metadata"].get("annotations", {}).get(key, "{}"))
    return found


def _outcome(api: Api, job: Object) -> tuple[int | None, str]:
    """Exit code of the run (None while it is running) and a message: after a failure, the note of the Event `Failed`."""
    name = job["metadata"]["name"]
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return 0, f"Job/{name} is complete"
        if condition["status"] == "True" and condition["type"] == "Failed":
            notes = [event["note"] for event in _events(api, job) if event.get("reason") == "Failed"]
            return 1, f"Job/{name} failed: {notes[-1] if notes else condition.get('message', 'see `kubectl describe`')}"
    return None, f"Job/{name} is running"


def _controller_condition(api: Api, job: Object, now: float) -> Problem | None:
    """Why the controller itself does not run. Nothing else reports that."""
    created = seconds(job["metadata"]["creationTimestamp"])
    if job.get("status", {}).get("ready") or now < created + GRACE_S:
        return None
    name = job["metadata"]["name"]
    try:
        found = api.list(PODS, "pods", labelSelector=f"{labels.JOB_NAME}={name}")["items"]
    except ApiStatusError:  # a user without the right to list pods
        problem = f"no pod of the controller is ready: see `kubectl describe job/{name}`"
        return Problem("Pending", problem, created)
    pods = sorted(map(read_pod, found), key=lambda pod: pod.created)
    if not pods:
        refused = [event["note"] for event in _events(api, job) if event.get("reason") == "FailedCreate"]
        if refused:
            problem = f"the controller has no pod: {refused[-1]}; {FIXES['PodCreationFailed']}"
            return Problem("PodCreationFailed", problem, created)
        return Problem("Pending", f"the controller has no pod: see `kubectl describe job/{name}`", created)
    pod = pods[-1]
    if pod.ended:
        problem = (
            f"the controller's last pod has ended, and the next one starts after a back-off: see `kubectl logs job/{name}`"
        )
        return Problem("Pending", problem, pod.created)
    reason = pod.waiting if pod.waiting in FIXES else "Pending"
    if pod.phase != "Pending" or (reason in ("Pending", "Unschedulable") and now < pod.created + GRACE_S):
        return None
    return Problem(
        reason, f"the controller's pod {pod.name} does not start: {pod.message or reason}; {FIXES[reason]}", pod.created
    )


def _events(api: Api, job: Object) -> list[Object]:
    """The Events about a Job, in order of their creation."""
    uid = job["metadata"]["uid"]
    found = _list(api, EVENTS, "events", fieldSelector=f"regarding.uid={uid}")
    about = [event for event in found if event.get("regarding", {}).get("uid") == uid and "note" in event]
    return sorted(about, key=lambda event: event["metadata"].get("creationTimestamp") or "")


def _controller_job(api: Api, name: str) -> Object:
    try:
        return api.get(JOBS, "jobs", name)
    except ApiStatusError as error:
        if error.status != 404:
            raise BadInput(
                f"the API server rejects the request ({error}): ask for the right to get jobs in namespace {api.namespace}"
            ) from None
        raise BadInput(
            f"Job/{name} does not exist in namespace {api.namespace}: apply jobs/adainf.yaml there, or choose another "
            "namespace by -n or another run by --name"
        ) from None


def _list(api: Api, group: str, kind: str, **query: str) -> list[Object]:
    try:
        found: list[Object] = api.list(group, kind, **query)["items"]
        return found
    except ApiStatusError as error:
        raise BadInput(
            f"the API server rejects the request ({error}): ask for the right to list {kind} in namespace {api.namespace}"
        ) from None


def _without_attempt(waits_for: list[str] | None) -> str:
    """State of a task without a Job: an earlier run of the controller finished it, or it has not started yet."""
    if waits_for is None:
        return "already done"
    return "waiting" if waits_for else "next"


def _state(attempt: Attempt, job: Object) -> str:
    if attempt.state != "active":
        return {"ending": "ending", "failed": "failed", "complete": "done"}[attempt.state]
    if attempt.stop_requested:
        return "ending"
    if job["spec"].get("suspend"):
        return "queued"
    return "running" if attempt.pods_ready or not attempt.pods_wanted else "starting"


def _gpu_seconds(job: Object, now: float) -> float:
    """GPU time of all pods of a Job."""
    status = job.get("status", {})
    if "startTime" not in status:
        return 0.0
    ended = [c["lastTransitionTime"] for c in status.get("conditions") or [] if c["type"] in ("Complete", "Failed")]
    until = seconds(ended[0]) if ended else now
    containers = job["spec"]["template"]["spec"]["containers"]
    gpus = sum(int(container.get("resources", {}).get("limits", {}).get(_GPU, 0)) for container in containers)
    return gpus * int(job["spec"].get("parallelism", 1)) * (until - seconds(status["startTime"]))
