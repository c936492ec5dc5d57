"""Run a user's program to completion: no shell, a time limit, and no process left behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from adainf.errors import BadInput, StageFailed

_GRACE_S = 5.0
"""From SIGTERM to SIGKILL: the client of a container needs time to stop its container."""
_LAST_BYTES, _LAST_LINES = 4000, 4


def run_program(words: Sequence[str], limit_s: float) -> None:
    """Run a program with arguments in its own process group.

    Raises `BadInput` where it cannot be started, `StageFailed` with its last lines of output where it fails or exceeds
    `limit_s`. The group has ended on every exit from this function, including signals.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
        except OSError as error:
            raise BadInput(f"generator.command: {words[0]} cannot be started ({error.strerror}); fix the command") from None
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise StageFailed(
                f"generate: generator.command took more than {limit_s:g} s{_last_lines(output)}; raise generator.time_limit_s "
                f"or lower generator.sampler.batch, or run it by hand: {shlex.join(words)}"
            ) from None
        finally:
            if process.returncode is None:
                _end(process)
        if code:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            raise StageFailed(f"generate: generator.command {ended}{_last_lines(output)}; run it by hand: {shlex.join(words)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the complete group, since the program may have started others that would continue."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_lines(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - _LAST_BYTES, 0))
    lines = output.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return f", output: {' | '.join(lines)}" if lines else ", without output"
