"""Why an attempt failed, from what outlives its pods: the Job's condition and the pods' termination records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adainf.errors import BAD_INPUT, INTERRUPTED, STAGE_FAILED, SUPERSEDED
from adainf.kubernetes.controller.state import Attempt, Pod
from adainf.kubernetes.termination_record import TerminationRecord

Kind = Literal["bad input", "permanent", "superseded", "interrupted", "preempted", "terminated", "failure"]

_KINDS: dict[int, Kind] = {
    BAD_INPUT: "bad input",
    STAGE_FAILED: "permanent",
    SUPERSEDED: "superseded",
    INTERRUPTED: "interrupted",
}
_PRECEDENCE = [BAD_INPUT, STAGE_FAILED, None, SUPERSEDED, INTERRUPTED]
"""Of several pods' exit codes the first in this list counts; None is any other code. A failed pod interrupts the others."""


@dataclass(frozen=True)
class FailureCause:
    """Why an attempt ended without its artifacts."""

    kind: Kind
    message: str
    done: int | None = None
    """Progress at the failure, from the termination record."""
    deterministic: bool = False
    """Whether the same cause in two consecutive attempts means that the next attempt fails, too."""


def failure_cause(attempt: Attempt, records: Sequence[TerminationRecord], pods: Sequence[Pod]) -> FailureCause:
    """The cause of a failed attempt, or of one that is about to fail."""
    if attempt.stop_requested:
        return FailureCause(
            "terminated", "the controller terminated it: some pods did not start in time, or one was stuck on a lost node"
        )
    if attempt.reason in ("", "SuccessCriteriaMet", "CompletionsReached"):
        return FailureCause("failure", "its Job is complete, but some of its artifacts are not in the run", deterministic=True)
    named = re.search(r"failed with exit code ([0-9]+)", attempt.message)
    code = int(named[1]) if named else None
    failed = sorted((record for record in records if record.exit_code), key=lambda record: _precedence(record, code))
    if attempt.reason == "PodFailurePolicy" and code is None:
        return FailureCause("preempted", f"a pod was disrupted ({attempt.message})")
    if failed and (code is None or failed[0].exit_code == code):
        record = failed[0]
        return FailureCause(_KINDS.get(record.exit_code, "failure"), record.reason, record.done, deterministic=True)
    if any(pod.oom for pod in pods):
        return FailureCause("failure", "a container exceeded its memory limit (OOMKilled): raise the limit in its template")
    return FailureCause(_KINDS.get(code, "failure") if code else "failure", f"{attempt.reason}: {attempt.message}")


def _precedence(record: TerminationRecord, named: int | None) -> tuple[bool, int]:
    known = record.exit_code if record.exit_code in _PRECEDENCE else None
    return record.exit_code != named, _PRECEDENCE.index(known)
