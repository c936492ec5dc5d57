"""What is seen of a run at one moment: frozen, so that a decision is a function of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from adainf.kubernetes.controller.tasks import Task
from adainf.kubernetes.controller.templates import Template

State = Literal["active", "ending", "failed", "complete"]
"""Of an attempt. `ending`: the outcome is certain, but pods are still there (`FailureTarget`, `SuccessCriteriaMet`)."""


@dataclass(frozen=True)
class Attempt:
    """One Job. Times are seconds since 1970."""

    job: str
    task: str
    number: int
    created: float
    state: State
    since: float
    """When it came into this state."""
    reason: str = ""
    message: str = ""
    """Both of the condition with which it ends."""
    grace_s: float = 30
    gang: bool = False
    pods_wanted: int = 1
    """At a time."""
    template_hash: str = ""
    recipe_sha256: str = ""
    started_with: str = ""
    progress: str = ""
    released: bool = False


@dataclass(frozen=True)
class Pod:
    """One pod of an attempt."""

    name: str
    job: str
    index: int
    phase: str
    created: float
    deleted: float | None = None
    """Where it is being deleted: when its grace ends, or began if its node is silent, as nobody uses it there."""
    node: str = ""
    ip: str = ""
    waiting: str = ""
    """Why it does not start, a reason of the kubelet or the scheduler."""
    message: str = ""
    oom: bool = False

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class Record:
    """What a launcher left of its pod's end."""

    exit_code: int
    reason: str
    done: int | None = None


@dataclass(frozen=True)
class Observed:
    """All that `decide` knows."""

    now: float
    tasks: Mapping[str, Task]
    """Each after those that it waits for."""
    templates: Mapping[str, Template]
    recipe_sha256: str
    done: frozenset[str]
    """Tasks all of whose artifacts are committed, and answer the recipe."""
    attempts: tuple[Attempt, ...] = ()
    pods: tuple[Pod, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict)
    """By task: changes whenever the store shows progress."""
    records: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    """By Job."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By Job: why the cluster takes none of its pods."""
    progress: Mapping[str, str] = field(default_factory=dict)
    """By Job: what its first pod says."""
    wrong: str = ""
    """What cannot be right, whatever is tried: a sentence."""

    def attempts_of(self, task: str) -> list[Attempt]:
        """In the order of their numbers."""
        return sorted((a for a in self.attempts if a.task == task), key=lambda attempt: attempt.number)

    def living_pods_of(self, attempt: Attempt) -> list[Pod]:
        return [pod for pod in self.pods if pod.job == attempt.job and not pod.ended]
