"""What is wrong with the pods of an attempt, which the Job itself does not say."""

from __future__ import annotations

from collections.abc import Iterator

from adainf.kubernetes.controller.actions import Release, Tell
from adainf.kubernetes.controller.state import Attempt, Observed, Pod
from adainf.kubernetes.controller.tasks import Task

MENDS = {
    "ErrImagePull": "check the image's name and the pull secret in its template, then apply again",
    "ImagePullBackOff": "check the image's name and the pull secret in its template, then apply again",
    "InvalidImageName": "write a valid image into its template, then apply again",
    "CreateContainerConfigError": "make the Secret or ConfigMap that it names; the pod starts by itself then",
    "CreateContainerError": "see `kubectl describe pod` for the container's settings",
    "RunContainerError": "see `kubectl describe pod` for the container's settings",
    "Unschedulable": "add nodes, or ask for less in its template",
}
"""Why a pod does not start → what helps."""

_ROOM_S = 30
"""A pod may be without a node for so long before it is told: autoscalers and ending pods need a moment."""


def is_stuck(pod: Pod, now: float, stuck_s: float) -> bool:
    """Whether a pod that was deleted is still there so long after its grace that its node must be lost."""
    return pod.deleted is not None and not pod.ended and now >= pod.deleted + stuck_s


def watch_pods(seen: Observed, task: Task, attempt: Attempt, stuck_s: float) -> Iterator[Tell | Release]:
    """Tell what keeps pods from starting or ending, and release an active attempt that it makes useless."""
    pods = seen.living_pods_of(attempt)
    stuck = [pod for pod in pods if is_stuck(pod, seen.now, stuck_s)]
    for pod in stuck:
        yield Tell(
            "PodStuck",
            pod.name,
            f"pod {pod.name} hangs on node {pod.node}, which does not answer; the chain goes on without it: delete the node, "
            "or give it the taint node.kubernetes.io/out-of-service",
        )
    if attempt.state != "active" or attempt.released:
        return
    pending = [pod for pod in pods if pod.phase == "Pending" and pod.deleted is None]
    for pod in pending:
        if pod.waiting in MENDS and (pod.waiting != "Unschedulable" or seen.now >= pod.created + _ROOM_S):
            problem = f"pod {pod.name} does not start: {pod.message or pod.waiting}"
            yield Tell(pod.waiting, pod.name, f"{problem}; {MENDS[pod.waiting]}")
    refused = seen.refused.get(attempt.job, "")
    if refused:
        yield Tell(
            "PodsRefused",
            attempt.job,
            f"the cluster refuses pods of {attempt.job}: {refused}; raise the quota, or ask for less in its template",
        )
    waiting_since = [pod.created for pod in pending] + ([attempt.created] if refused else [])
    timeout_s = seen.templates[task.stage].start_timeout_s
    if waiting_since and seen.now >= min(waiting_since) + timeout_s:
        yield Tell(
            "StartTimeout",
            attempt.job,
            f"{attempt.job} did not start all of its pods within {timeout_s:.0f} s and is ended, to hold no node in vain",
        )
        yield Release(attempt.job)
    elif stuck and (attempt.gang or len(stuck) == len(pods)):
        yield Release(attempt.job)
