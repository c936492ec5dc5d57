"""Writes the termination record of a pod, which outlives it: pods of a failed gang are deleted together with their logs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED, SUPERSEDED
from adainf.kubernetes.termination_record import TerminationRecord

CODES_WITH_MESSAGE = (BAD_INPUT, STAGE_FAILED, SUPERSEDED, INTERRUPTED)
"""The exit codes for which a stage prints an error message."""
TERMINATION_BYTES = 4096
"""Kubernetes reads this much of a termination log."""
MESSAGE_PREFIX = "adainf: "


def reason_of(exit_code: int, lines: Sequence[str]) -> str:
    """Why a stage ended, from its exit code and its last lines. One sentence."""
    if exit_code == OK:
        return "done"
    if exit_code == 128 + signal.SIGKILL:
        return f"killed ({exit_code}): out of memory?"
    message = next((line.removeprefix(MESSAGE_PREFIX) for line in reversed(lines) if line.startswith(MESSAGE_PREFIX)), None)
    if message and exit_code <= 128:
        return message
    if exit_code in CODES_WITH_MESSAGE:
        return f"ended with exit code {exit_code}"
    if exit_code > 128:
        with suppress(ValueError):
            return f"killed by {signal.Signals(exit_code - 128).name} ({exit_code})"
    return f"exit code {exit_code}{': ' + lines[-1] if lines else ''}"


def write_termination_log(record: TerminationRecord) -> None:
    """Write to ADAINF_TERMINATION_LOG, else to the file that Kubernetes mounts. Outside a pod, write nothing."""
    named = os.environ.get("ADAINF_TERMINATION_LOG")
    path = Path(named or "/dev/termination-log")
    with suppress(OSError):
        if named or path.exists():
            path.write_bytes(record.to_json(TERMINATION_BYTES))
