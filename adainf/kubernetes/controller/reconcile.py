"""The reconcile function: cluster state, including the time, → actions. It is pure.

It returns the same actions until their effect is visible, so nothing is lost if the controller is killed before it executes
them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adainf.errors import BAD_INPUT, OK, STAGE_FAILED
from adainf.kubernetes.controller.actions import Action, Create, EmitEvent, Finish, RecordProgress
from adainf.kubernetes.controller.failures import FailureCause, failure_cause
from adainf.kubernetes.controller.pods import check_pods, termination_timed_out
from adainf.kubernetes.controller.state import Attempt, ClusterState, Problem
from adainf.kubernetes.controller.tasks import Task


@dataclass(frozen=True)
class Timeouts:
    """Back-off and time-outs, in seconds."""

    backoff_s: float = 10
    """Before the next attempt. Doubles with each attempt without progress."""
    max_backoff_s: float = 300
    termination_timeout_s: float = 60
    """Time beyond a pod's grace period after which its node counts as lost."""
    fix_s: float = 900
    """Time that the user has to fix bad input when nothing else can run."""


def reconcile(cluster: ClusterState, timeouts: Timeouts) -> list[Action]:
    """The actions to execute now, in this order. A `Finish` is the last one, and only returned when no attempt is active."""
    problems = [*([cluster.recipe_problem] if cluster.recipe_problem else []), *cluster.problems.values()]
    if problems and not cluster.attempts:
        return [Finish(BAD_INPUT, problems[0].message)]  # nothing runs that could continue
    actions: list[Action] = list(_report_problems(cluster))
    actions += [action for attempt in cluster.attempts for action in _monitor(cluster, attempt, timeouts)]
    ends = {}
    """Task → the end of the pipeline, which no attempt of the task can avert."""
    for task in cluster.tasks.values():
        for action in _task(cluster, task, timeouts):
            if isinstance(action, Finish):
                ends[task.name] = action
            else:
                actions.append(action)
    if any(attempt.state == "active" for attempt in cluster.attempts) or _can_start(cluster, ends, timeouts):
        note = "; the tasks that do not need it continue, and then the pipeline ends"
        return actions + [EmitEvent("TaskFailed", name, f"{end.message}{note}") for name, end in ends.items()]
    if ends:
        return [*actions, next(iter(ends.values()))]
    problem = cluster.recipe_problem
    if problem is None:
        return [*actions, Finish(OK, "every stage is done")]
    return [*actions, Finish(BAD_INPUT, problem.message)] if _is_final(cluster, problem, timeouts) else actions


def _can_start(cluster: ClusterState, ends: Mapping[str, Finish], timeouts: Timeouts) -> bool:
    """Whether an attempt of an unfinished task can start, now or after a back-off."""
    finished = {name for name in cluster.tasks if _is_finished(cluster, name, timeouts)}
    return any(task.after <= finished for name, task in cluster.tasks.items() if name not in finished | ends.keys())


def _report_problems(cluster: ClusterState) -> Iterator[EmitEvent]:
    if problem := cluster.recipe_problem:
        what = "the pipeline continues with the last valid recipe" if cluster.tasks else "attempts that run continue"
        note = f"{problem.message}; {what}: fix the recipe and apply it again"
        yield EmitEvent(problem.reason, "recipe", note, since=problem.since)
    for name, problem in cluster.problems.items():
        note = f"{problem.message}; no attempt of {name} starts until then, and other tasks continue"
        yield EmitEvent(problem.reason, name, note, since=problem.since)


def _is_final(cluster: ClusterState, problem: Problem, timeouts: Timeouts) -> bool:
    """Whether the time to fix a problem has expired."""
    return cluster.now >= problem.since + timeouts.fix_s


def _task(cluster: ClusterState, task: Task, timeouts: Timeouts) -> Iterator[Action]:
    """The next attempt of a task, or a `Finish` if none can succeed."""
    if task.name in cluster.done or not all(_is_finished(cluster, before, timeouts) for before in task.after):
        return
    attempts = cluster.attempts_of(task.name)
    latest = attempts[-1] if attempts else None
    token = cluster.tokens.get(task.name, "")
    number, delay_s = 1, 0.0
    if latest is not None:
        if latest.state == "active":
            return
        if _is_current(cluster, latest) or latest.state == "failed":
            cause, without_progress = _cause(cluster, latest), _attempts_without_progress(cluster, attempts, token)
            yield EmitEvent("AttemptFailed", latest.job, f"{task.name}, attempt {latest.number}: {cause.message}")
            permanent = _permanent_failure(cluster, attempts, cause, without_progress)
            if permanent is not None:
                yield permanent
                return
            delay_s = _delay_s(latest, cause, without_progress, timeouts)
        # Else it succeeded, for an earlier recipe that asked for less.
        if not _is_replaceable(cluster, latest, timeouts) or cluster.now < latest.since + delay_s:
            return
        number = latest.number + 1
    problem = cluster.problems.get(task.name)
    if problem is None:
        yield Create(task.name, number, token)
    elif _is_final(cluster, problem, timeouts):
        yield Finish(BAD_INPUT, problem.message)


def _monitor(cluster: ClusterState, attempt: Attempt, timeouts: Timeouts) -> Iterator[Action]:
    """Check the pods of an attempt and record its progress."""
    if attempt.state in ("active", "ending"):
        yield from check_pods(cluster, attempt, timeouts.termination_timeout_s)
    if attempt.state != "active":
        return
    progress = cluster.progress.get(attempt.job, "")
    if progress not in ("", attempt.progress):
        yield RecordProgress(attempt.job, progress)
    template = cluster.templates.get(attempt.stage)
    for reason, what, current in (
        ("TemplateChanged", "template", template is None or attempt.template_hash == template.hash),
        ("RecipeChanged", "recipe", attempt.recipe_sha256 == cluster.recipe_sha256 or not cluster.tasks),
    ):
        if not current:
            note = (
                f"{attempt.job} keeps the {what} it was created from; the next attempt uses the new one: to apply it now, "
                f"delete Job/{attempt.job}"
            )
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


def _is_current(cluster: ClusterState, attempt: Attempt) -> bool:
    """Whether the next attempt would have the same template and recipe."""
    template = cluster.templates.get(attempt.stage)
    return template is not None and (attempt.template_hash, attempt.recipe_sha256) == (template.hash, cluster.recipe_sha256)


def _cause(cluster: ClusterState, attempt: Attempt) -> FailureCause:
    pods = [pod for pod in cluster.pods if pod.job == attempt.job]
    return failure_cause(attempt, cluster.records.get(attempt.job, ()), pods)


def _attempts_without_progress(cluster: ClusterState, attempts: Sequence[Attempt], token: str) -> int:
    """Number of consecutive attempts, up to the latest, that left no progress in the store."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.started_with != token or not _is_current(cluster, attempt):
            break
        count += _cause(cluster, attempt).kind != "superseded"
    return count


def _permanent_failure(
    cluster: ClusterState, attempts: Sequence[Attempt], cause: FailureCause, without_progress: int
) -> Finish | None:
    """The end of the pipeline, if another attempt cannot help."""
    latest = attempts[-1]
    if not _is_current(cluster, latest):
        return None
    what = f"{latest.task} failed permanently in attempt {latest.number} ({latest.job})"
    if cause.kind == "bad input":
        return Finish(BAD_INPUT, f"{what}: {cause.message}")
    if cause.kind == "permanent":
        return Finish(STAGE_FAILED, f"{what}: {cause.message}")
    if cause.kind == "failure" and cause.deterministic and without_progress >= 2 and _cause(cluster, attempts[-2]) == cause:
        return Finish(STAGE_FAILED, f"{what}, like the previous attempt at the same step: {cause.message}")
    if without_progress >= cluster.templates[latest.stage].attempts:
        return Finish(STAGE_FAILED, f"{what}, after {without_progress} attempts without progress: {cause.message}")
    return None


def _delay_s(attempt: Attempt, cause: FailureCause, without_progress: int, timeouts: Timeouts) -> float:
    """Exponential back-off. The jitter is a hash of the Job's name, so that two runs do not retry in lockstep."""
    if cause.kind == "superseded":  # by an attempt that still runs: taking over from it would help neither
        return timeouts.max_backoff_s
    delay_s = min(timeouts.backoff_s * 2.0 ** max(without_progress - 1, 0), timeouts.max_backoff_s)
    return delay_s * (1 + zlib.crc32(attempt.job.encode()) / 2**34)
