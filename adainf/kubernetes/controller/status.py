"""``adainf status`` and ``adainf wait``: the state of a run as the cluster reports it, without access to its store."""

from __future__ import annotations

import json
import time

from rich.console import Console
from rich.table import Table

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, Api, ApiStatusError, Unavailable, connect
from adainf.kubernetes.controller.parse import is_child, read_attempt, seconds
from adainf.kubernetes.controller.scrape import duration
from adainf.kubernetes.controller.state import Attempt
from adainf.kubernetes.controller.templates import Object, Owner
from adainf.pipeline.stages import STAGES

_GPU = "nvidia.com/gpu"
_POLL_S = 2


def status(namespace: str | None = None, name: str = "adainf") -> None:
    """Print a table with the latest attempt of each task, or what the task waits for, and the state of the run.

    Raises `BadInput` if the controller's Job does not exist.
    """
    api = connect(namespace)
    job = _controller_job(api, name)
    owner = Owner(name, job["metadata"]["uid"], api.namespace)
    listed = _list(api, JOBS, "jobs", labelSelector=f"{labels.RUN}={name}")
    jobs = {job["metadata"]["name"]: job for job in listed if is_child(job, owner)}
    attempts = sorted(
        map(read_attempt, jobs.values()), key=lambda a: (list(STAGES).index(a.task.partition(".")[0]), a.task, a.number)
    )
    latest = {attempt.task: attempt for attempt in attempts}
    waits = _task_summary(job)
    table = Table(
        "stage", "arm", "attempt", "state", "progress", "ETA", "GPU time", "reason", title=f"Job/{name} in {api.namespace}"
    )
    for task in dict.fromkeys([*waits, *latest]):
        stage, _, arm = task.partition(".")
        gpu_s = sum(_gpu_seconds(jobs[attempt.job]) for attempt in attempts if attempt.task == task)
        table.add_row(stage, arm, *(_of_attempt(latest[task], gpu_s) if task in latest else _without_attempt(waits[task])))
    for column in table.columns:
        column.overflow = "fold"  # a pipe has 80 columns: the default would truncate words
    console = Console(highlight=False)
    console.print(table)
    console.print(outcome(api, job)[1], markup=False, soft_wrap=True)


def wait(namespace: str | None = None, name: str = "adainf", timeout_s: float | None = None) -> int:
    """Return 0 once the run is complete. Print the reason and return 1 if it failed or the time-out expired."""
    api = connect(namespace)
    deadline = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    while True:
        try:
            code, message = outcome(api, _controller_job(api, name))
        except Unavailable as error:
            code, message = None, str(error)
        if code is None and time.monotonic() >= deadline:
            code, message = 1, f"{message}: timed out after {timeout_s:.0f} s, the run continues"
        if code is not None:
            print(message)
            return code
        time.sleep(min(_POLL_S, max(deadline - time.monotonic(), 0)))


def outcome(api: Api, job: Object) -> tuple[int | None, str]:
    """Exit code of the run (None while it is running) and a message: after a failure, the note of the Event `Failed`."""
    name = job["metadata"]["name"]
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return 0, f"Job/{name} is complete"
        if condition["status"] == "True" and condition["type"] == "Failed":
            events = _list(api, EVENTS, "events", fieldSelector=f"regarding.uid={job['metadata']['uid']}")
            notes = [event["note"] for event in events if event.get("reason") == "Failed" and _is_about(event, job)]
            return 1, f"Job/{name} failed: {notes[-1] if notes else condition.get('message', 'see `kubectl describe`')}"
    return None, f"Job/{name} is running"


def _is_about(event: Object, job: Object) -> bool:
    return bool(event.get("regarding", {}).get("uid") == job["metadata"]["uid"]) and "note" in event


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
            "namespace by -n"
        ) from None


def _list(api: Api, group: str, kind: str, **query: str) -> list[Object]:
    try:
        return api.list(group, kind, **query)["items"]
    except ApiStatusError as error:
        raise BadInput(
            f"the API server rejects the request ({error}): ask for the right to list {kind} in namespace {api.namespace}"
        ) from None


def _task_summary(job: Object) -> dict[str, list[str] | None]:
    """Task → what it waits for, or None if it is done. Empty before the controller's first iteration."""
    summary: dict[str, list[str] | None] = json.loads(job["metadata"].get("annotations", {}).get(labels.TASK_SUMMARY, "{}"))
    return summary


def _of_attempt(attempt: Attempt, gpu_s: float) -> tuple[str, ...]:
    progress, _, eta = attempt.progress.partition("eta ")
    why = attempt.message if attempt.state == "failed" else ""
    return str(attempt.number), _state(attempt), progress, eta, duration(gpu_s) if gpu_s else "", why


def _without_attempt(waits_for: list[str] | None) -> tuple[str, ...]:
    """The row of a task without a Job: an earlier run of the controller finished it, or it has not started yet."""
    if waits_for is None:
        return "", "already done", "", "", "", ""
    return "", "waiting" if waits_for else "next", "", "", "", f"for {', '.join(waits_for)}" if waits_for else ""


def _state(attempt: Attempt) -> str:
    if attempt.stop_requested and attempt.state != "failed":
        return "ending"
    return {"active": "running", "ending": "ending", "failed": "failed", "complete": "done"}[attempt.state]


def _gpu_seconds(job: Object) -> float:
    """GPU time of all pods of a Job."""
    status = job.get("status", {})
    if "startTime" not in status:
        return 0.0
    ended = [c["lastTransitionTime"] for c in status.get("conditions") or [] if c["type"] in ("Complete", "Failed")]
    until = seconds(ended[0]) if ended else time.time()
    containers = job["spec"]["template"]["spec"]["containers"]
    gpus = sum(int(container.get("resources", {}).get("limits", {}).get(_GPU, 0)) for container in containers)
    return gpus * int(job["spec"].get("parallelism", 1)) * (until - seconds(status["startTime"]))
