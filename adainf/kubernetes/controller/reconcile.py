"""The reconcile function: cluster state, including the time, → actions. It is pure.

It returns the same actions until their effect is visible, so nothing is lost if the controller is killed before it executes
them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adainf.errors import BAD_INPUT, OK, STAGE_FAILED
from adainf.kubernetes.controller.actions import Action, Create, EmitEvent, Finish, RecordProgress, Terminate
from adainf.kubernetes.controller.failures import FailureCause, failure_cause
from adainf.kubernetes.controller.pods import check_pods, termination_timed_out
from adainf.kubernetes.controller.state import Attempt, ClusterState
from adainf.kubernetes.controller.tasks import Task


@dataclass(frozen=True)
class Timeouts:
    """Back-off and time-outs, in seconds."""

    backoff_s: float = 10
    """Before the next attempt. Doubles with each attempt without progress."""
    max_backoff_s: float = 300
    termination_timeout_s: float = 60
    """Time beyond a pod's grace period after which its node counts as lost."""


def reconcile(cluster: ClusterState, timeouts: Timeouts) -> list[Action]:
    """The actions to execute now, in this order. A `Finish` is the last one."""
    actions = [action for task in cluster.tasks.values() for action in _task(cluster, task, timeouts)]
    if cluster.bad_input:
        actions.append(Finish(BAD_INPUT, cluster.bad_input))
    ends = [action for action in actions if isinstance(action, Finish)]
    if ends:
        # Without the controller nothing retries or monitors the other tasks, so their attempts save and stop.
        events = [action for action in actions if isinstance(action, EmitEvent)]
        active = [attempt for attempt in cluster.attempts if attempt.state == "active" and not attempt.stop_requested]
        return [*events, *(Terminate(attempt.job) for attempt in active), ends[0]]
    if all(_is_finished(cluster, task, timeouts) for task in cluster.tasks):
        return [*actions, Finish(OK, "every stage is done")]
    return actions


def _task(cluster: ClusterState, task: Task, timeouts: Timeouts) -> Iterator[Action]:
    attempts = cluster.attempts_of(task.name)
    latest = attempts[-1] if attempts else None
    if latest is not None:
        yield from _monitor(cluster, task, latest, timeouts)
    if task.name in cluster.done or not all(_is_finished(cluster, before, timeouts) for before in task.after):
        return
    token = cluster.tokens.get(task.name, "")
    if latest is None:
        yield Create(task.name, 1, token)
        return
    if latest.state == "active":
        return
    if _is_current(cluster, task, latest) or latest.state == "failed":
        cause, without_progress = _cause(cluster, latest), _attempts_without_progress(cluster, task, attempts, token)
        yield EmitEvent("AttemptFailed", latest.job, f"{task.name}, attempt {latest.number}: {cause.message}")
        permanent = _permanent_failure(cluster, task, attempts, cause, without_progress)
        if permanent is not None:
            yield permanent
            return
        delay_s = _delay_s(latest, cause, without_progress, timeouts)
    else:
        delay_s = 0.0  # it succeeded, for an earlier recipe that asked for less
    if _is_replaceable(cluster, latest, timeouts) and cluster.now >= latest.since + delay_s:
        yield Create(task.name, latest.number + 1, token)


def _monitor(cluster: ClusterState, task: Task, attempt: Attempt, timeouts: Timeouts) -> Iterator[Action]:
    """Check the pods of an attempt and record its progress."""
    if attempt.state in ("active", "ending"):
        yield from check_pods(cluster, task, attempt, timeouts.termination_timeout_s)
    if attempt.state != "active":
        return
    progress = cluster.progress.get(attempt.job, "")
    if progress not in ("", attempt.progress):
        yield RecordProgress(attempt.job, progress)
    for reason, what, current in (
        ("TemplateChanged", "template", attempt.template_hash == cluster.templates[task.stage].hash),
        ("RecipeChanged", "recipe", attempt.recipe_sha256 == cluster.recipe_sha256),
    ):
        if not current:
            note = f"{attempt.job} keeps the {what} it was created from; the next attempt uses the new one"
            yield EmitEvent(reason, attempt.job, note, warning=False)


def _is_finished(cluster: ClusterState, name: str, timeouts: Timeouts) -> bool:
    """Whether a task is done and its attempts occupy no nodes."""
    return name in cluster.done and all(_is_replaceable(cluster, attempt, timeouts) for attempt in cluster.attempts_of(name))


def _is_replaceable(cluster: ClusterState, attempt: Attempt, timeouts: Timeouts) -> bool:
    """Whether the next attempt may start: no pod of this one is left, except pods that are stuck on a lost node.

    Stuck pods may come back. They cannot interfere: the next attempt has other DNS names, and fences the checkpoints.
    """
    if attempt.state == "ending":
        left = cluster.running_pods_of(attempt)
        stuck = bool(left) and all(termination_timed_out(pod, cluster.now, timeouts.termination_timeout_s) for pod in left)
        return stuck or cluster.now >= attempt.since + attempt.grace_s + timeouts.termination_timeout_s
    return attempt.state != "active"


def _is_current(cluster: ClusterState, task: Task, attempt: Attempt) -> bool:
    """Whether the next attempt would have the same template and recipe."""
    return (attempt.template_hash, attempt.recipe_sha256) == (cluster.templates[task.stage].hash, cluster.recipe_sha256)


def _cause(cluster: ClusterState, attempt: Attempt) -> FailureCause:
    pods = [pod for pod in cluster.pods if pod.job == attempt.job]
    return failure_cause(attempt, cluster.records.get(attempt.job, ()), pods)


def _attempts_without_progress(cluster: ClusterState, task: Task, attempts: Sequence[Attempt], token: str) -> int:
    """Number of consecutive attempts, up to the latest, that left no progress in the store."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.started_with != token or not _is_current(cluster, task, attempt):
            break
        count += _cause(cluster, attempt).kind != "superseded"
    return count


def _permanent_failure(
    cluster: ClusterState, task: Task, attempts: Sequence[Attempt], cause: FailureCause, without_progress: int
) -> Finish | None:
    """The end of the pipeline, if another attempt cannot help."""
    latest = attempts[-1]
    if not _is_current(cluster, task, latest):
        return None
    what = f"{task.name} failed permanently in attempt {latest.number} ({latest.job})"
    if cause.kind == "bad input":
        return Finish(BAD_INPUT, f"{what}: {cause.message}")
    if cause.kind == "permanent":
        return Finish(STAGE_FAILED, f"{what}: {cause.message}")
    if cause.kind == "failure" and cause.deterministic and without_progress >= 2 and _cause(cluster, attempts[-2]) == cause:
        return Finish(STAGE_FAILED, f"{what}, like the previous attempt at the same step: {cause.message}")
    if without_progress >= cluster.templates[task.stage].attempts:
        return Finish(STAGE_FAILED, f"{what}, after {without_progress} attempts without progress: {cause.message}")
    return None


def _delay_s(attempt: Attempt, cause: FailureCause, without_progress: int, timeouts: Timeouts) -> float:
    """Exponential back-off. The jitter is a hash of the Job's name, so that two runs do not retry in lockstep."""
    if cause.kind == "superseded":  # by an attempt that still runs: taking over from it would help neither
        return timeouts.max_backoff_s
    delay_s = min(timeouts.backoff_s * 2.0 ** max(without_progress - 1, 0), timeouts.max_backoff_s)
    return delay_s * (1 + zlib.crc32(attempt.job.encode()) / 2**34)
