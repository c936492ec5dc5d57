"""Progress: plain lines at intervals, and a complete log in the run."""

from __future__ import annotations

import gc
import json
import signal
import time
from pathlib import Path

import pytest

from adainf.errors import Stopped
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.runtime import signals


def logged(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for info in run.store.list("logs/") for line in run.store.get(info.key).decode().splitlines()]


def test_lines_come_at_intervals_and_the_log_holds_every_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("adainf.pipeline.progress.time.monotonic", lambda: now[0])
    run = Run(str(tmp_path))
    reporter = Reporter(run.store, "fit")
    with reporter.track("fit", 100, done=20) as track:
        for _ in range(80):
            now[0] += 0.5
            track.advance(loss=1.25)
    reporter.info("fit: done")
    reporter.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fit: 30/100 (30 %), 2/s, 35 s left  loss 1.25"
    assert len(lines) == 7 + 1  # every 5 of 40 seconds except the last
    events = logged(run)
    assert [event["done"] for event in events if event["event"] == "progress"] == list(range(21, 101))
    assert events[-1]["text"] == "fit: done"


def test_brackets_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(Run(str(tmp_path)).store).info("wrong [bold]setting[/bold] in [/tmp]")
    assert capsys.readouterr().out == "wrong [bold]setting[/bold] in [/tmp]\n"


def test_the_other_ranks_are_silent_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(str(tmp_path))
    reporter = Reporter(run.store, "pretrain", quiet=True)
    with reporter.track("pretrain", 2) as track:
        track.advance(2, loss=1.0)
    reporter.info("done")
    reporter.close()
    assert capsys.readouterr().out == ""
    assert list(run.store.list()) == []


def test_the_progress_file_is_updated_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, file = [0.0], tmp_path / "progress.json"
    monkeypatch.setattr("adainf.pipeline.progress.time.monotonic", lambda: now[0])
    monkeypatch.setenv("ADAINF_PROGRESS_FILE", str(file))
    updates = []
    with Reporter(name="fit").track("fit", 10, done=2) as track:
        for _ in range(8):
            updates.append(json.loads(file.read_text()))
            now[0] += 0.4
            track.advance(loss=1.25)
    assert [update["done"] for update in updates] == [2, 2, 2, 5, 5, 5, 8, 8]
    last = json.loads(file.read_text())
    assert 0 <= time.time() - last.pop("updated") < 60
    assert last == {"stage": "fit", "label": "fit", "done": 10, "total": 10, "rate": 2.5, "values": {"loss": 1.25}}
    with Reporter(name="fit", quiet=True).track("another rank", 1):
        pass
    assert json.loads(file.read_text())["label"] == "fit"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_whose_exception_was_lost_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python prints an exception raised in a finalizer, and continues."""
    monkeypatch.setattr(signals, "_requests", signals.Requests())

    class Finalized:
        def __del__(self) -> None:
            signals._requests.handle_stop(signal.SIGTERM, None)

    with Reporter().track("ingest", 3) as track:
        track.advance()
        Finalized()
        gc.collect()
        with pytest.raises(Stopped):
            track.advance()
    with signals.deferred():
        signals.check()  # a loop that saves checks `received` itself
