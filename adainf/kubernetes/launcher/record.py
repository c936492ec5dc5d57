"""What is left of a pod when it has ended: pods of a failed gang are deleted together with their logs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED, SUPERSEDED

SPEAKING = (BAD_INPUT, STAGE_FAILED, SUPERSEDED, INTERRUPTED)
"""The exit codes that come with a sentence."""
TERMINATION_BYTES = 4096
"""What Kubernetes reads of a termination log."""
SENTENCE = "adainf: "


@dataclass(frozen=True)
class Record:
    """How the pod of a stage ended."""

    exit_code: int
    reason: str
    done: int | None
    total: int | None
    lines: list[str]
    """The last ones of its output."""

    def to_json(self, limit_bytes: int | None = None) -> bytes:
        """As JSON, without its first lines where all would be longer than `limit_bytes`."""
        content = asdict(self)
        while True:
            data = json.dumps(content).encode()
            if limit_bytes is None or len(data) <= limit_bytes or not content["lines"]:
                return data
            content["lines"] = content["lines"][1:]


def reason_of(exit_code: int, lines: Sequence[str]) -> str:
    """One sentence on why a stage ended so, from its last lines."""
    if exit_code == OK:
        return "done"
    if exit_code == 128 + signal.SIGKILL:
        return f"killed ({exit_code}): out of memory?"
    said = next((line.removeprefix(SENTENCE) for line in reversed(lines) if line.startswith(SENTENCE)), None)
    if said and exit_code <= 128:
        return said
    if exit_code in SPEAKING:
        return f"ended with exit code {exit_code}"
    if exit_code > 128:
        with suppress(ValueError):
            return f"killed by {signal.Signals(exit_code - 128).name} ({exit_code})"
    return f"exit code {exit_code}{': ' + lines[-1] if lines else ''}"


def write_termination_log(record: Record) -> None:
    """To ADAINF_TERMINATION_LOG, or where Kubernetes has put a file for it; elsewhere it is left out."""
    named = os.environ.get("ADAINF_TERMINATION_LOG")
    path = Path(named or "/dev/termination-log")
    with suppress(OSError):
        if named or path.exists():
            path.write_bytes(record.to_json(TERMINATION_BYTES))
