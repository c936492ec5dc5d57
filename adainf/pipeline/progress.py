"""How far a stage is: a bar on a terminal, else one plain line every few seconds; and the same as JSON lines in the run.

Where ADAINF_PROGRESS_FILE names a file, the last word is in there too, for a launcher that serves it.

Nothing in here may decide what a stage computes: times live in the log, never in an artifact.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from adainf.runtime import signals
from adainf.storage import Store

LINE_EVERY_SECONDS = 5.0
LOG_EVERY_SECONDS = 10.0
FILE_EVERY_SECONDS = 1.0


class Track:
    """Progress through one loop."""

    def __init__(self, reporter: Reporter, label: str, total: int, done: int, bar: tuple[Progress, TaskID] | None) -> None:
        self._reporter, self._label, self._total, self._bar = reporter, label, total, bar
        self._started, self._started_at = done, time.monotonic()
        self._line_at = self._started_at + LINE_EVERY_SECONDS
        self.done = done
        reporter.tell(label, done, total, 0.0, {})

    def advance(self, by: int = 1, **values: float) -> None:
        """So much more is done; `values` (a loss, say) are shown beside it. Raises `Stopped` as `signals.check` does."""
        signals.check()
        self.done += by
        now = time.monotonic()
        rate = (self.done - self._started) / max(now - self._started_at, 1e-9)
        self._reporter.tell(self._label, self.done, self._total, rate, values)
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
    """Speaks to the user and keeps the log of one command. `quiet` is for the ranks other than 0."""

    def __init__(self, store: Store | None = None, name: str = "run", quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._store = None if quiet else store
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._log_key = f"logs/{name}/{stamp}-{os.getpid()}.jsonl"
        self._log_lines: list[str] = []
        self._logged_at = time.monotonic()
        self._name, self._file = name, None if quiet else os.environ.get("ADAINF_PROGRESS_FILE")
        self._told_at = -FILE_EVERY_SECONDS

    def info(self, text: str) -> None:
        """One plain line for the user; it is logged too."""
        self.console.print(text, markup=False)
        self.log("say", text=text)

    def log(self, event: str, **fields: object) -> None:
        """One line of the log, with the time. Lines reach the store every few seconds and at the end."""
        if self._store is None:
            return
        self._log_lines.append(json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **fields}))
        if time.monotonic() - self._logged_at > LOG_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._store is not None and self._log_lines:
            self._store.put(self._log_key, "".join(f"{line}\n" for line in self._log_lines).encode())
        self._logged_at = time.monotonic()

    def tell(self, label: str, done: int, total: int, rate: float, values: Mapping[str, float]) -> None:
        """Leave in the progress file, where there is one, how far a loop is and how many a second it does."""
        now = time.monotonic()
        if self._file is None or (now - self._told_at < FILE_EVERY_SECONDS and done < total):
            return
        self._told_at = now
        word = {"stage": self._name, "label": label, "done": done, "total": total, "rate": round(rate, 3)}
        whole = Path(f"{self._file}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            whole.write_text(json.dumps({**word, "values": values, "updated": time.time()}))
            whole.replace(self._file)  # who reads it finds the old word or the new one

    @contextlib.contextmanager
    def track(self, label: str, total: int, done: int = 0) -> Iterator[Track]:
        """Follow a loop of `total` items of which `done` are done already."""
        started = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
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
