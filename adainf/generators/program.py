"""Running somebody else's program to its end: no shell, a time limit, and nothing of it left behind when we are stopped."""

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
"""Between asking it to stop and killing it: a container's client needs a moment to stop its container."""
_LAST_BYTES, _LAST_LINES = 4000, 4


def run_program(words: Sequence[str], limit_s: float) -> None:
    """Run program and arguments in a process group of their own.

    Raises `BadInput` where it cannot be started, `StageFailed` with its last words where it fails or takes longer than
    `limit_s`. However this ends, also by a signal, the group has ended too.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0)
        except OSError as error:
            raise BadInput(f"generator.command: {words[0]} cannot be started ({error.strerror}); mend the command") from None
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise StageFailed(
                f"generate: generator.command took more than {limit_s:g} s{_last_words(said)}; raise generator.time_limit_s or "
                f"lower generator.sampler.batch, and see what it does by hand: {shlex.join(words)}"
            ) from None
        finally:
            if process.returncode is None:
                _end(process)
        if code:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise StageFailed(
                f"generate: generator.command {ended}{_last_words(said)}; see what it does by hand: {shlex.join(words)}"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the whole group: it may have started others, which would go on without it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(size - _LAST_BYTES, 0))
    lines = said.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return f", saying: {' | '.join(lines)}" if lines else ", saying nothing"
