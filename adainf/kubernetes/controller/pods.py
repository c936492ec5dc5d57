"""Conditions of an attempt's pods that the Job's status does not show, and the release of attempts that cannot succeed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adainf.kubernetes.controller.actions import EmitEvent, Terminate
from adainf.kubernetes.controller.state import Attempt, ClusterState, Pod

_IMAGE = "check the image's name and the pull secret in its template, then apply again"
_CONTAINER = "check the container's settings by `kubectl describe pod`"
FIXES = {
    "PodCreationFailed": "raise the quota, or lower the requests in its template",
    "ErrImagePull": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "InvalidImageName": "write a valid image into its template, then apply again",
    "CreateContainerConfigError": "create the missing Secret or ConfigMap; the pod then starts without further action",
    "CreateContainerError": _CONTAINER,
    "RunContainerError": _CONTAINER,
    "PodStuckTerminating": "delete the node, or add the taint node.kubernetes.io/out-of-service",
    "Unschedulable": "add nodes, or lower the requests in its template",
    "Pending": "none is needed while its image is pulled; otherwise see `kubectl describe pod`",
}
"""Reason of a condition → how to fix it, the worst first. `Pending`: it has not started, and nothing says why."""

_START_TIMEOUT_S = 900
"""Of a stage without a template."""
GRACE_S = 30
"""`Unschedulable` and `Pending` are reported after this time: most cases resolve before."""


@dataclass(frozen=True)
class Condition:
    """Why a pod of an attempt does not start or end."""

    reason: str
    subject: str
    """Name of the pod, or of the Job."""
    problem: str
    since: float

    def __str__(self) -> str:
        return f"{self.problem}; {FIXES[self.reason]}"


def termination_timed_out(pod: Pod, now: float, timeout_s: float) -> bool:
    """Whether a terminating pod has outlived its grace period by `timeout_s`, so that its node counts as lost."""
    return pod.deleted is not None and not pod.ended and now >= pod.deleted + timeout_s


def pod_conditions(cluster: ClusterState, attempt: Attempt, termination_timeout_s: float) -> list[Condition]:
    """The current conditions of an attempt, the worst first."""
    return sorted(_conditions(cluster, attempt, termination_timeout_s), key=lambda found: list(FIXES).index(found.reason))


def _conditions(cluster: ClusterState, attempt: Attempt, termination_timeout_s: float) -> Iterator[Condition]:
    pods = cluster.running_pods_of(attempt)
    for pod in pods:
        if termination_timed_out(pod, cluster.now, termination_timeout_s):
            problem = f"pod {pod.name} is stuck on node {pod.node}, which is unreachable; the run continues without it"
            yield Condition("PodStuckTerminating", pod.name, problem, pod.deleted or 0)
    if attempt.state != "active" or attempt.stop_requested:
        return
    if rejected := cluster.create_failures.get(attempt.job, ""):
        number = f"{attempt.pods_wanted - len(pods)} of {attempt.pods_wanted} pods"
        problem = f"the API server rejects {number} of {attempt.job}: {rejected}"
        since = max([attempt.created, *(pod.created for pod in pods)])
        yield Condition("PodCreationFailed", attempt.job, problem, since)
    for pod in filter(_is_pending, pods):
        reason = pod.waiting if pod.waiting in FIXES else "Pending"
        if reason not in ("Unschedulable", "Pending") or cluster.now >= pod.created + GRACE_S:
            yield Condition(reason, pod.name, f"pod {pod.name} does not start: {pod.message or reason}", pod.created)


def current_conditions(cluster: ClusterState, termination_timeout_s: float) -> dict[str, tuple[str, str, float]]:
    """Task → reason, message and start of its worst condition, for `adainf status`. The key of the recipe's is empty."""
    problems = {**cluster.problems, **({"": cluster.recipe_problem} if cluster.recipe_problem else {})}
    found = {name: (problem.reason, problem.message, problem.since) for name, problem in problems.items()}
    for attempt in cluster.attempts:
        if attempt.state == "active" and (conditions := pod_conditions(cluster, attempt, termination_timeout_s)):
            found[attempt.task] = (conditions[0].reason, str(conditions[0]), conditions[0].since)
    return found


def check_pods(cluster: ClusterState, attempt: Attempt, termination_timeout_s: float) -> Iterator[EmitEvent | Terminate]:
    """Report the conditions of an attempt, and terminate it if they keep it from making progress.

    The pods of a gang make progress together or not at all. Other pods are independent: while one of them runs, the attempt is
    at work, and the others wait for their nodes.
    """
    for condition in pod_conditions(cluster, attempt, termination_timeout_s):
        if condition.reason != "Pending":
            yield EmitEvent(condition.reason, condition.subject, str(condition), since=condition.since)
    if attempt.state != "active" or attempt.stop_requested:
        return
    pods = cluster.running_pods_of(attempt)
    stuck = [pod for pod in pods if termination_timed_out(pod, cluster.now, termination_timeout_s)]
    if stuck and (attempt.gang or len(stuck) == len(pods)):
        yield Terminate(attempt.job)
    else:
        yield from _start_timeout(cluster, attempt, pods)


def _start_timeout(cluster: ClusterState, attempt: Attempt, pods: list[Pod]) -> Iterator[EmitEvent | Terminate]:
    template = cluster.templates.get(attempt.stage)
    timeout_s = template.start_timeout_s if template else _START_TIMEOUT_S
    waiting_since = [pod.created for pod in filter(_is_pending, pods)]
    if attempt.job in cluster.create_failures:
        waiting_since.append(attempt.created)
    # A pod that has just ended leaves its node to one that waits, and one that was preempted has left no trace.
    if waiting_since and cluster.now >= max(min(waiting_since), cluster.worked_at.get(attempt.job, 0)) + timeout_s:
        missing = "not all pods" if attempt.gang else "no pod"
        where = f"CronJob/{template.name}" if template else "its CronJob"
        yield EmitEvent(
            "StartTimeout",
            attempt.job,
            f"{missing} of {attempt.job} started within {timeout_s:.0f} s; the attempt is terminated, and the next one uses "
            f"the current template: raise the annotation adainf.dev/start-timeout of {where}, or add nodes",
        )
        yield Terminate(attempt.job)


def _is_pending(pod: Pod) -> bool:
    return pod.phase == "Pending" and pod.deleted is None
