"""The log of one command, as numbered parts in the run's store; and output that never ends the work."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from adainf.storage import Store

FIRST_INTERVAL_S, MAX_INTERVAL_S = 10.0, 30.0
"""Between two parts; grows from the first to the second."""
MAX_PENDING_LINES = 20_000
"""Kept while the store fails; older ones are dropped, and their number is logged."""
CLOSE_TIMEOUT_S = 10.0


class LogWriter:
    """Writes lines to ``PREFIX-00000.jsonl``, ``PREFIX-00001.jsonl``, … from a thread of its own.

    Each line is sent once. A store that fails or hangs neither ends nor delays the caller: lines are kept for the next attempt,
    and `warn` is called once with the reason.
    """

    def __init__(self, store: Store, prefix: str, warn: Callable[[str], None]) -> None:
        self._store, self._prefix, self._warn = store, prefix, warn
        self._pending: deque[str] = deque(maxlen=MAX_PENDING_LINES)
        self._dropped = self._part = 0
        self._changed = threading.Condition()
        self._closing = self._warned = False
        self._interval_s = FIRST_INTERVAL_S
        self._thread: threading.Thread | None = None

    def append(self, line: str) -> None:
        """Add a line; returns at once."""
        with self._changed:
            self._dropped += len(self._pending) == MAX_PENDING_LINES
            self._pending.append(line)
            if self._thread is None:  # a daemon: a store that hangs must not keep the process from exiting
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what is pending, for at most `CLOSE_TIMEOUT_S`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, self._interval_s)
                closing = self._closing
                self._interval_s = min(self._interval_s * 1.2, MAX_INTERVAL_S)
                lines, dropped = list(self._pending), self._dropped
                self._pending.clear()
                self._dropped = 0
            if lines and not self._write(lines, dropped):
                with self._changed:  # in front of what came in the meantime, as far as there is space
                    space = MAX_PENDING_LINES - len(self._pending)
                    kept = lines[max(len(lines) - space, 0) :]
                    self._dropped += dropped + len(lines) - len(kept)
                    self._pending.extendleft(reversed(kept))
            if closing:
                return

    def _write(self, lines: list[str], dropped: int) -> bool:
        note = [json.dumps({"event": "dropped", "lines": dropped})] if dropped else []
        try:
            self._store.put(f"{self._prefix}-{self._part:05d}.jsonl", "".join(f"{line}\n" for line in [*note, *lines]).encode())
        except Exception as error:  # whatever a store raises: logging ends nothing
            if not self._warned:
                self._warned = True
                self._warn(f"the log cannot be written to the run ({error}); the work continues, and the log is kept in memory")
            return False
        self._part += 1
        return True


class Output:
    """Standard output whose failure ends nothing: after an error (a closed pipe, a full disk) its text is dropped."""

    def __init__(self) -> None:
        self._failed = False

    def write(self, text: str) -> int:
        """As a file's; reports the first error on standard error."""
        if not self._failed:
            try:
                return sys.stdout.write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        """As a file's."""
        if not self._failed:
            try:
                sys.stdout.flush()
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        self._failed = True
        with suppress(OSError, ValueError):  # what is buffered must not fail again when the interpreter exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            reason = f"standard output cannot be written ({error.strerror}); the work continues without it"
            print(f"adainf: {reason}", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)
