"""Why an attempt ended, from what outlives its pods: the Job's condition and the launcher's record in the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adainf.errors import BAD_INPUT, INTERRUPTED, STAGE_FAILED, SUPERSEDED
from adainf.kubernetes.controller.state import Attempt, Pod, Record

Kind = Literal["bad input", "failed for good", "superseded", "interrupted", "preempted", "not started", "failure"]

_KINDS: dict[int, Kind] = {
    BAD_INPUT: "bad input",
    STAGE_FAILED: "failed for good",
    SUPERSEDED: "superseded",
    INTERRUPTED: "interrupted",
}
_GRAVITY = [BAD_INPUT, STAGE_FAILED, None, SUPERSEDED, INTERRUPTED]
"""Of several pods' exit codes the first counts; None is any other: a failed pod makes the others stop with 75."""


@dataclass(frozen=True)
class Cause:
    """Why an attempt ended without its artifacts."""

    kind: Kind
    sentence: str
    done: int | None = None
    """How far it was, where its record says so."""
    certain: bool = False
    """Whether it is known, so that the same cause twice means that it will come again."""


def cause_of(attempt: Attempt, records: Sequence[Record], pods: Sequence[Pod]) -> Cause:
    """The cause of an attempt that has ended, or is about to."""
    if attempt.released:
        return Cause("not started", "it was given up, as its pods did not all start or one was stuck on a lost node")
    if attempt.reason in ("", "SuccessCriteriaMet", "CompletionsReached"):
        return Cause("failure", "it ended well, but not all of its artifacts are in the run", certain=True)
    named = re.search(r"failed with exit code ([0-9]+)", attempt.message)
    code = int(named[1]) if named else None
    failed = sorted((record for record in records if record.exit_code), key=lambda record: _gravity(record, code))
    if attempt.reason == "PodFailurePolicy" and code is None:
        return Cause("preempted", f"a pod was disrupted ({attempt.message})")
    if failed and (code is None or failed[0].exit_code == code):
        record = failed[0]
        return Cause(_KINDS.get(record.exit_code, "failure"), record.reason, record.done, certain=True)
    if any(pod.oom for pod in pods):
        return Cause("failure", "a container took more memory than its limit (OOMKilled); raise the limit in its template")
    return Cause(_KINDS.get(code, "failure") if code else "failure", f"{attempt.reason}: {attempt.message}")


def _gravity(record: Record, named: int | None) -> tuple[bool, int]:
    known = record.exit_code if record.exit_code in _GRAVITY else None
    return record.exit_code != named, _GRAVITY.index(known)
