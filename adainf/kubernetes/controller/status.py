"""``adainf status`` and ``adainf wait``: the chain as the cluster shows it, without a look into its store."""

from __future__ import annotations

import json
import time

from rich.console import Console
from rich.table import Table

from adainf.errors import BadInput
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.api import EVENTS, JOBS, Api, Refused, Unavailable, connect
from adainf.kubernetes.controller.parse import is_child, read_attempt, seconds
from adainf.kubernetes.controller.scrape import duration
from adainf.kubernetes.controller.state import Attempt
from adainf.kubernetes.controller.templates import Object, Owner
from adainf.pipeline.stages import STAGES

_GPU = "nvidia.com/gpu"
_LOOK_S = 2


def status(namespace: str | None = None, name: str = "adainf") -> None:
    """Print one table: the newest attempt of each task, or what it waits for, and how the whole is.

    Raises `BadInput` where there is no chain.
    """
    api = connect(namespace)
    owner = _owner(api, name)
    chain = Owner(name, owner["metadata"]["uid"], api.namespace)
    listed = _list(api, JOBS, "jobs", labelSelector=f"{labels.RUN}={name}")
    jobs = {job["metadata"]["name"]: job for job in listed if is_child(job, chain)}
    attempts = sorted(
        map(read_attempt, jobs.values()), key=lambda a: (list(STAGES).index(a.task.partition(".")[0]), a.task, a.number)
    )
    newest = {attempt.task: attempt for attempt in attempts}
    waits = _outline(owner)
    table = Table(
        "stage", "arm", "attempt", "state", "progress", "ETA", "GPU time", "reason", title=f"Job/{name} in {api.namespace}"
    )
    for task in dict.fromkeys([*waits, *newest]):
        stage, _, arm = task.partition(".")
        gpu_s = sum(_gpu_seconds(jobs[attempt.job]) for attempt in attempts if attempt.task == task)
        table.add_row(stage, arm, *(_of_attempt(newest[task], gpu_s) if task in newest else _without_attempt(waits[task])))
    for column in table.columns:
        column.overflow = "fold"  # a pipe has 80 letters; words that are cut there are lost
    console = Console(highlight=False)
    console.print(table)
    console.print(outcome(api, owner)[1], markup=False, soft_wrap=True)


def wait(namespace: str | None = None, name: str = "adainf", timeout_s: float | None = None) -> int:
    """Return 0 once the chain is complete, 1 with its reason once it has failed or the time is up."""
    api = connect(namespace)
    deadline = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    while True:
        try:
            code, sentence = outcome(api, _owner(api, name))
        except Unavailable as error:
            code, sentence = None, str(error)
        if code is None and time.monotonic() >= deadline:
            code, sentence = 1, f"{sentence}, after {timeout_s:.0f} s; the chain goes on"
        if code is not None:
            print(sentence)
            return code
        time.sleep(min(_LOOK_S, max(deadline - time.monotonic(), 0)))


def outcome(api: Api, owner: Object) -> tuple[int | None, str]:
    """0, 1 or None while the chain runs, and a sentence: of a failure the one that the controller told."""
    name = owner["metadata"]["name"]
    for condition in owner.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return 0, f"Job/{name} is complete"
        if condition["status"] == "True" and condition["type"] == "Failed":
            events = _list(api, EVENTS, "events", fieldSelector=f"regarding.uid={owner['metadata']['uid']}")
            told = [event["note"] for event in events if event.get("reason") == "Failed" and _is_of(event, owner)]
            return 1, f"Job/{name} failed: {told[-1] if told else condition.get('message', 'see `kubectl describe`')}"
    return None, f"Job/{name} is running"


def _is_of(event: Object, owner: Object) -> bool:
    return bool(event.get("regarding", {}).get("uid") == owner["metadata"]["uid"]) and "note" in event


def _owner(api: Api, name: str) -> Object:
    try:
        return api.get(JOBS, "jobs", name)
    except Refused as error:
        if error.status != 404:
            raise BadInput(f"the API server refuses ({error}): ask for the right to read jobs in {api.namespace}") from None
        raise BadInput(
            f"there is no Job/{name} in namespace {api.namespace}: apply jobs/adainf.yaml there, or choose another by -n"
        ) from None


def _list(api: Api, group: str, kind: str, **query: str) -> list[Object]:
    try:
        return api.list(group, kind, **query)["items"]
    except Refused as error:
        raise BadInput(f"the API server refuses ({error}): ask for the right to list {kind} in {api.namespace}") from None


def _outline(owner: Object) -> dict[str, list[str] | None]:
    """What each task waits for; None: it is done. Empty before the controller's first look."""
    outline: dict[str, list[str] | None] = json.loads(owner["metadata"].get("annotations", {}).get(labels.OUTLINE, "{}"))
    return outline


def _of_attempt(attempt: Attempt, gpu_s: float) -> tuple[str, ...]:
    progress, _, eta = attempt.progress.partition("eta ")
    why = attempt.message if attempt.state == "failed" else ""
    return str(attempt.number), _state(attempt), progress, eta, duration(gpu_s) if gpu_s else "", why


def _without_attempt(waits_for: list[str] | None) -> tuple[str, ...]:
    """Of a task that has no Job: an earlier chain has done it, or its turn will come."""
    if waits_for is None:
        return "", "done before", "", "", "", ""
    return "", "waits" if waits_for else "next", "", "", "", f"for {', '.join(waits_for)}" if waits_for else ""


def _state(attempt: Attempt) -> str:
    if attempt.released and attempt.state != "failed":
        return "ending"
    return {"active": "running", "ending": "ending", "failed": "failed", "complete": "done"}[attempt.state]


def _gpu_seconds(job: Object) -> float:
    """GPUs of all of its pods, for as long as the Job ran."""
    status = job.get("status", {})
    if "startTime" not in status:
        return 0.0
    ended = [c["lastTransitionTime"] for c in status.get("conditions") or [] if c["type"] in ("Complete", "Failed")]
    until = seconds(ended[0]) if ended else time.time()
    containers = job["spec"]["template"]["spec"]["containers"]
    gpus = sum(int(container.get("resources", {}).get("limits", {}).get(_GPU, 0)) for container in containers)
    return gpus * int(job["spec"].get("parallelism", 1)) * (until - seconds(status["startTime"]))
