"""The actions of the controller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Create:
    """Create the Job of an attempt."""

    task: str
    attempt: int
    token: str
    """The task's progress token at this time."""


@dataclass(frozen=True)
class Terminate:
    """Terminate an attempt, so that it frees its nodes."""

    job: str


@dataclass(frozen=True)
class RecordProgress:
    """Annotate an attempt's Job with its progress, for `kubectl describe`."""

    job: str
    progress: str


@dataclass(frozen=True)
class EmitEvent:
    """Emit an Event on the controller's Job, at most once for each reason, subject and `since`."""

    reason: str
    subject: str
    """Name of the Job, pod or task that the Event is about."""
    note: str
    warning: bool = True
    since: float | None = None
    """Start of a condition that lasts: its Event is repeated, as the cluster keeps an Event for an hour."""


@dataclass(frozen=True)
class Finish:
    """End the pipeline with an exit code."""

    code: int
    message: str


Action = Create | Terminate | RecordProgress | EmitEvent | Finish
