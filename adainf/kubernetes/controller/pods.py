"""Problems of an attempt's pods that the Job's status does not show."""

from __future__ import annotations

from collections.abc import Iterator

from adainf.kubernetes.controller.actions import EmitEvent, Terminate
from adainf.kubernetes.controller.state import Attempt, ClusterState, Pod
from adainf.kubernetes.controller.tasks import Task

FIXES = {
    "ErrImagePull": "check the image's name and the pull secret in its template, then apply again",
    "ImagePullBackOff": "check the image's name and the pull secret in its template, then apply again",
    "InvalidImageName": "write a valid image into its template, then apply again",
    "CreateContainerConfigError": "create the missing Secret or ConfigMap; the pod then starts without further action",
    "CreateContainerError": "check the container's settings by `kubectl describe pod`",
    "RunContainerError": "check the container's settings by `kubectl describe pod`",
    "Unschedulable": "add nodes, or lower the requests in its template",
}
"""Reason of a waiting pod → how to fix it."""

_SCHEDULING_GRACE_S = 30
"""`Unschedulable` is reported after this time: autoscalers and terminating pods resolve most cases before."""


def termination_timed_out(pod: Pod, now: float, timeout_s: float) -> bool:
    """Whether a terminating pod has outlived its grace period by `timeout_s`, so that its node counts as lost."""
    return pod.deleted is not None and not pod.ended and now >= pod.deleted + timeout_s


def check_pods(
    cluster: ClusterState, task: Task, attempt: Attempt, termination_timeout_s: float
) -> Iterator[EmitEvent | Terminate]:
    """Report pods that do not start or terminate, and terminate an active attempt that cannot succeed because of them."""
    pods = cluster.running_pods_of(attempt)
    stuck = [pod for pod in pods if termination_timed_out(pod, cluster.now, termination_timeout_s)]
    for pod in stuck:
        yield EmitEvent(
            "PodStuckTerminating",
            pod.name,
            f"pod {pod.name} is stuck on node {pod.node}, which is unreachable; the run continues without it: delete the node, "
            "or add the taint node.kubernetes.io/out-of-service",
        )
    if attempt.state != "active" or attempt.stop_requested:
        return
    pending = [pod for pod in pods if pod.phase == "Pending" and pod.deleted is None]
    for pod in pending:
        if pod.waiting in FIXES and (pod.waiting != "Unschedulable" or cluster.now >= pod.created + _SCHEDULING_GRACE_S):
            problem = f"pod {pod.name} does not start: {pod.message or pod.waiting}"
            yield EmitEvent(pod.waiting, pod.name, f"{problem}; {FIXES[pod.waiting]}")
    rejected = cluster.create_failures.get(attempt.job, "")
    if rejected:
        yield EmitEvent(
            "PodCreationFailed",
            attempt.job,
            f"the API server rejects pods of {attempt.job}: {rejected}; raise the quota, or lower the requests in its template",
        )
    waiting_since = [pod.created for pod in pending] + ([attempt.created] if rejected else [])
    timeout_s = cluster.templates[task.stage].start_timeout_s
    if waiting_since and cluster.now >= min(waiting_since) + timeout_s:
        yield EmitEvent(
            "StartTimeout",
            attempt.job,
            f"not all pods of {attempt.job} started within {timeout_s:.0f} s; the attempt is terminated to free its nodes: "
            f"raise the annotation adainf.dev/start-timeout of CronJob/adainf-{task.stage}, or add nodes",
        )
        yield Terminate(attempt.job)
    elif stuck and (attempt.gang or len(stuck) == len(pods)):
        yield Terminate(attempt.job)
