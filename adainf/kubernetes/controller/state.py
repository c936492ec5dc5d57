"""The observed state of a run at one time. Frozen, so that the controller's actions are a pure function of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from adainf.kubernetes.controller.tasks import Task
from adainf.kubernetes.controller.templates import Template
from adainf.kubernetes.termination_record import TerminationRecord

AttemptState = Literal["active", "ending", "failed", "complete"]
"""`ending`: the outcome is final, but pods are still terminating (`FailureTarget`, `SuccessCriteriaMet`)."""


@dataclass(frozen=True)
class Attempt:
    """One Job of a task. Times are seconds since 1970."""

    job: str
    task: str
    number: int
    created: float
    """When it was created, or last resumed by a queue."""
    state: AttemptState
    since: float
    """Time of the transition to `state`."""
    uid: str = ""
    reason: str = ""
    message: str = ""
    """`reason` and `message` of the condition that ends the Job."""
    grace_s: float = 30
    gang: bool = False
    pods_wanted: int = 1
    """Number of pods that should exist now: `parallelism` of the Job, or fewer when few completions are left."""
    pods_ready: int = 0
    template_hash: str = ""
    recipe_sha256: str = ""
    started_with: str = ""
    """The task's progress token when the attempt was created."""
    progress: str = ""
    stop_requested: bool = False
    """Whether the controller terminated it."""

    @property
    def stage(self) -> str:
        return self.task.partition(".")[0]


@dataclass(frozen=True)
class Pod:
    """One pod of an attempt."""

    name: str
    job: str
    index: int
    phase: str
    created: float
    deleted: float | None = None
    """Of a terminating pod: end of its grace period, or the start of it if the node is unreachable. Else None."""
    node: str = ""
    ip: str = ""
    waiting: str = ""
    """Why it does not start: a reason of the kubelet or the scheduler."""
    message: str = ""
    oom: bool = False

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class Problem:
    """Bad input that the user can fix while the pipeline runs."""

    reason: str
    """Reason of its Event."""
    message: str
    since: float
    """When the controller first saw it."""


@dataclass(frozen=True)
class ClusterState:
    """Everything that the controller's actions depend on."""

    now: float
    """Time of the API server."""
    tasks: Mapping[str, Task]
    """In topological order."""
    templates: Mapping[str, Template]
    """Stage → its last valid template. A stage whose template has never been valid has none."""
    recipe_sha256: str
    done: frozenset[str]
    """Tasks whose artifacts are all committed and match the recipe."""
    attempts: tuple[Attempt, ...] = ()
    pods: tuple[Pod, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Task → progress token, which changes whenever the store shows progress."""
    records: Mapping[str, tuple[TerminationRecord, ...]] = field(default_factory=dict)
    """Job → termination records of its pods."""
    create_failures: Mapping[str, str] = field(default_factory=dict)
    """Job → why the API server rejects its pods (`FailedCreate`)."""
    worked_at: Mapping[str, float] = field(default_factory=dict)
    """Job → when the controller last saw it at work: a pod running, or all pods of a gang."""
    progress: Mapping[str, str] = field(default_factory=dict)
    """Job → progress that its first pod reports."""
    problems: Mapping[str, Problem] = field(default_factory=dict)
    """Task → why its next attempt cannot be created."""
    recipe_problem: Problem | None = None
    """Why the last valid recipe is used, not the applied one. `tasks` is empty if there is no valid one."""

    def attempts_of(self, task: str) -> list[Attempt]:
        """In order of their numbers."""
        return sorted((a for a in self.attempts if a.task == task), key=lambda attempt: attempt.number)

    def running_pods_of(self, attempt: Attempt) -> list[Pod]:
        """The attempt's pods that have not ended, terminating ones included."""
        return [pod for pod in self.pods if pod.job == attempt.job and not pod.ended]
