"""The termination record of a pod: written by its launcher, read by the controller. It outlives the pod and its logs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class TerminationRecord:
    """How the stage in a pod ended."""

    exit_code: int
    reason: str
    """One sentence."""
    done: int | None = None
    """Progress at the end, in the stage's unit."""
    total: int | None = None
    lines: list[str] = field(default_factory=list)
    """The last lines of output."""

    def to_json(self, limit_bytes: int | None = None) -> bytes:
        """Serialize to JSON. Drops the oldest lines until the result fits `limit_bytes`."""
        content = asdict(self)
        while True:
            data = json.dumps(content).encode()
            if limit_bytes is None or len(data) <= limit_bytes or not content["lines"]:
                return data
            content["lines"] = content["lines"][1:]

    @classmethod
    def from_json(cls, data: bytes) -> TerminationRecord | None:
        """Parse what `to_json` wrote. Returns None for anything else."""
        try:
            content = json.loads(data)
            return cls(int(content["exit_code"]), str(content["reason"]), content.get("done"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
