"""What can be decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Create:
    """Start an attempt of a task, whose progress in the store is `token` now."""

    task: str
    attempt: int
    token: str


@dataclass(frozen=True)
class Release:
    """End an attempt, so that it holds no node any longer."""

    job: str


@dataclass(frozen=True)
class Mirror:
    """Note an attempt's progress where `kubectl describe` shows it."""

    job: str
    progress: str


@dataclass(frozen=True)
class Tell:
    """An Event on the controller's Job. One of the same reason and subject is told once."""

    reason: str
    subject: str
    """The Job or pod that it is about."""
    note: str
    warning: bool = True


@dataclass(frozen=True)
class Finish:
    """The chain has ended, with this exit code."""

    code: int
    sentence: str


Action = Create | Release | Mirror | Tell | Finish
