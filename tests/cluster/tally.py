"""The pods that a Job has counted: each ended pod once, even after its object is deleted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.cluster.failures import match
from tests.cluster.store import Object

INDEX = "batch.kubernetes.io/job-completion-index"
FINALIZER = "batch.kubernetes.io/job-tracking"
_BACKOFF_S, _BACKOFF_MOST_S = 10, 600


def index_of(pod: Object) -> int | None:
    """The completion index. None if the Job is not Indexed."""
    written = pod["metadata"].get("annotations", {}).get(INDEX)
    return None if written is None else int(written)


@dataclass
class Tally:
    """`succeeded` holds indexes, or uids of pods if the Job is not Indexed."""

    succeeded: set[int | str] = field(default_factory=set)
    failed: int = 0
    failed_indexes: set[int] = field(default_factory=set)
    failures: dict[int | None, int] = field(default_factory=dict)
    """Index → failures that count towards its limit."""
    failed_job: str = ""
    """Message of the FailJob rule that matched."""
    counted: set[str] = field(default_factory=set)
    _since_success: dict[int | None, int] = field(default_factory=dict)
    _last: dict[int | None, float] = field(default_factory=dict)

    def count(self, job: Object, pod: Object) -> None:
        """Count an ended pod."""
        uid, index, spec = pod["metadata"]["uid"], index_of(pod), job["spec"]
        if uid in self.counted:
            return
        self.counted.add(uid)
        if pod["status"].get("phase") == "Succeeded":
            self.succeeded.add(uid if index is None else index)
            self._since_success.pop(index if "backoffLimitPerIndex" in spec else None, None)
            return
        rule = match(spec.get("podFailurePolicy", {}), pod)
        action = rule.action if rule else "Count"
        if rule and action == "FailJob":
            self.failed_job = self.failed_job or rule.message
        if action == "Ignore":
            return
        self.failed += 1
        per_index = index is not None and "backoffLimitPerIndex" in spec
        self.failures[index] = self.failures.get(index, 0) + 1
        if per_index and (action == "FailIndex" or self.failures[index] > spec["backoffLimitPerIndex"]):
            assert index is not None
            self.failed_indexes.add(index)
        key = index if per_index else None
        self._since_success[key] = self._since_success.get(key, 0) + 1
        self._last[key] = time.monotonic()

    def backoff(self, job: Object, index: int | None) -> tuple[object, float]:
        """Key of the back-off timer, and the back-off in seconds."""
        key = index if "backoffLimitPerIndex" in job["spec"] else None
        failures = self._since_success.get(key, 0)
        wait_s = min(_BACKOFF_S * 2 ** (failures - 1), _BACKOFF_MOST_S) if failures else 0
        return (job["metadata"]["uid"], "backoff", key, self._last.get(key)), wait_s
