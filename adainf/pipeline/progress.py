"""Progress of a stage: a bar on a terminal, else one plain line every few seconds; also as JSON lines in the run's log.

ADAINF_PROGRESS_FILE names a file that receives the latest progress, for a launcher that serves it.

Nothing here may influence a stage's results: times are written to the log, never to an artifact.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import IO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from adainf.pipeline.log import LogWriter, Output
from adainf.runtime import signals
from adainf.storage import Store

LINE_EVERY_SECONDS = 5.0
FILE_EVERY_SECONDS = 1.0


class Verbosity(IntEnum):
    """How much the commands of this process print."""

    QUIET = -1
    """Errors, and what was asked for, such as a table."""
    NORMAL = 0
    VERBOSE = 1
    """Also the events of the log, and the traceback of an error."""


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Set it for all reporters of this process."""
    global _verbosity
    _verbosity = verbosity


def verbosity() -> Verbosity:
    """That of this process."""
    return _verbosity


class Track:
    """Progress through one loop."""

    def __init__(self, reporter: Reporter, label: str, total: int, done: int, bar: tuple[Progress, TaskID] | None) -> None:
        self._reporter, self._label, self._total, self._bar = reporter, label, total, bar
        self._started, self._started_at = done, time.monotonic()
        self._line_at = self._started_at + LINE_EVERY_SECONDS
        self.done = done
        reporter.write_progress(label, done, total, 0.0, {})

    def advance(self, by: int = 1, **values: float) -> None:
        """Count `by` more items; show `values`, such as a loss. Raises `Stopped` as `signals.check` does."""
        signals.check()
        self.done += by
        now = time.monotonic()
        rate = (self.done - self._started) / max(now - self._started_at, 1e-9)
        self._reporter.write_progress(self._label, self.done, self._total, rate, values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar:
            progress, task = self._bar
            progress.update(task, completed=self.done, values=shown)
        elif now >= self._line_at and self.done < self._total:
            self._line_at = now + LINE_EVERY_SECONDS
            left = (self._total - self.done) / rate if rate else float("inf")
            self._reporter.info(
                f"{self._label}: {self.done}/{self._total} ({100 * self.done // self._total} %), {rate:.3g}/s, "
                f"{left:.0f} s left{'  ' + shown if shown else ''}"
            )
        if values:
            self._reporter.log("progress", label=self._label, done=self.done, total=self._total, **values)


class Reporter:
    """Prints to the user and writes the log of one command. `quiet` is for the ranks other than 0."""

    def __init__(self, store: Store | None = None, name: str = "run", quiet: bool = False) -> None:
        self.console = Console(file=cast(IO[str], Output()), quiet=quiet, highlight=False, soft_wrap=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._log: LogWriter | None = None
        if store is not None and not quiet:
            self._log = LogWriter(store, f"logs/{name}/{stamp}-{os.getpid()}", self._warn)
        self._name, self._file = name, None if quiet else os.environ.get("ADAINF_PROGRESS_FILE")
        self._written_at = -FILE_EVERY_SECONDS

    def info(self, text: str) -> None:
        """Print one plain line, and log it."""
        if _verbosity > Verbosity.QUIET:
            self.result(text)
        else:
            self._log_line("say", text=text)

    def result(self, text: str) -> None:
        """Print one plain line that the user asked for, also with --quiet, and log it."""
        self.console.print(text, markup=False)
        self._log_line("say", text=text)

    def log(self, event: str, **fields: object) -> None:
        """Append one line with the time to the log, which a thread writes to the run; see `LogWriter`."""
        if _verbosity == Verbosity.VERBOSE and not self.console.quiet:
            shown = " ".join(
                f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in fields.items()
            )
            print(f"  {event}: {shown}", file=sys.stderr)
        self._log_line(event, **fields)

    def _log_line(self, event: str, **fields: object) -> None:
        if self._log is not None:
            self._log.append(json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **fields}))

    def close(self) -> None:
        """Write the rest of the log. Never fails."""
        if self._log is not None:
            self._log.close()

    def _warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", markup=False)

    def write_progress(self, label: str, done: int, total: int, rate: float, values: Mapping[str, float]) -> None:
        """Write the progress of a loop and its throughput (items per second) to the progress file, if there is one."""
        now = time.monotonic()
        if self._file is None or (now - self._written_at < FILE_EVERY_SECONDS and done < total):
            return
        self._written_at = now
        progress = {"stage": self._name, "label": label, "done": done, "total": total, "rate": round(rate, 3)}
        temp = Path(f"{self._file}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk must not stop the stage
            temp.write_text(json.dumps({**progress, "values": values, "updated": time.time()}))
            temp.replace(self._file)  # an atomic write: readers see the old content or the new one

    @contextlib.contextmanager
    def track(self, label: str, total: int, done: int = 0) -> Iterator[Track]:
        """Report the progress of a loop over `total` items, of which `done` are done already."""
        started = time.monotonic()
        if self.console.is_terminal and not self.console.quiet and _verbosity > Verbosity.QUIET:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as progress:
                task = progress.add_task(label, total=total, completed=done, values="")
                yield Track(self, label, total, done, (progress, task))
        else:
            yield Track(self, label, total, done, None)
        self.log("timing", label=label, items=total - done, seconds=round(time.monotonic() - started, 3))
