"""Logging ends and delays nothing: stores that fail or hang, pipes that close, disks that are full, terminals that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adainf.cli.arguments import build_parser
from adainf.errors import BAD_INPUT, INTERRUPTED, OK, BadInput
from adainf.pipeline import log
from adainf.pipeline.artifacts import Run
from adainf.pipeline.log import LogWriter
from adainf.storage import ObjectInfo
from adainf.storage.local import LocalStore
from tests.tiny import RECIPE, write_recipe


class Broken(LocalStore):
    """A store whose puts fail, or hang until `released`, as `how` says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.how, self.puts, self.released = "", 0, threading.Event()

    def put(self, key: str, data: bytes) -> ObjectInfo:
        self.puts += 1
        if self.how == "fails":
            raise BadInput("access denied")
        if self.how == "hangs":
            self.released.wait(60)
        return super().put(key, data)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    monkeypatch.setattr(log, "FIRST_INTERVAL_S", 0.02)
    monkeypatch.setattr(log, "MAX_INTERVAL_S", 0.02)
    return Broken(tmp_path / "run")


def lines(store: Broken) -> list[str]:
    return [line for info in store.list("logs/") for line in store.get(info.key).decode().splitlines()]


def wait_until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_line_is_sent_once_and_in_order(store: Broken) -> None:
    writer = LogWriter(store, "logs/fit/1", pytest.fail)
    for number in range(30):
        writer.append(str(number))
        if number == 10:
            wait_until(lambda: store.puts)
    writer.close()
    assert lines(store) == [str(number) for number in range(30)]
    assert len(list(store.list("logs/"))) == store.puts > 1


def test_a_store_that_fails_is_reported_once_and_gets_all_lines_later(store: Broken) -> None:
    warnings: list[str] = []
    writer = LogWriter(store, "logs/fit/1", warnings.append)
    store.how = "fails"
    for number in range(10):
        writer.append(str(number))
    wait_until(lambda: store.puts > 3)
    store.how = ""
    writer.append("10")
    writer.close()
    assert lines(store) == [str(number) for number in range(11)]
    assert len(warnings) == 1
    assert "access denied" in warnings[0]


def test_memory_is_bounded_and_dropped_lines_are_counted(store: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_PENDING_LINES", 5)
    store.how = "fails"
    writer = LogWriter(store, "logs/fit/1", lambda text: None)
    for number in range(50):
        writer.append(json.dumps({"event": "say", "number": number}))
        if number % 20 == 0:
            before = store.puts
            wait_until(lambda before=before: store.puts > before + 1)
    store.how = ""
    writer.close()
    first, *kept = map(json.loads, lines(store))
    assert first == {"event": "dropped", "lines": 45}
    assert [line["number"] for line in kept] == [45, 46, 47, 48, 49]


def test_a_store_that_hangs_delays_neither_the_work_nor_its_end(store: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CLOSE_TIMEOUT_S", 0.1)
    store.how = "hangs"
    writer = LogWriter(store, "logs/fit/1", pytest.fail)
    writer.append("0")
    wait_until(lambda: store.puts)
    writer.append("1")
    writer.close()  # returns, although the store does not
    assert not lines(store)
    store.released.set()


def ingest(folder: Path, run: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adainf", "ingest", str(write_recipe(folder, RECIPE)), "--run", run]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, timeout=300, check=False, **options)


def test_a_full_disk_behind_standard_output_ends_nothing(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = ingest(tmp_path, str(tmp_path / "run"), stdout=full)
    assert (done.returncode, done.stderr.count("cannot be written (No space left on device)")) == (OK, 1)
    assert Run(str(tmp_path / "run")).find("real")


def test_a_closed_pipe_ends_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = ingest(tmp_path, str(tmp_path / "run"), stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr.count("cannot be written (Broken pipe)")) == (OK, 1)
    assert Run(str(tmp_path / "run")).find("real")


def test_a_store_that_rejects_logs_does_not_fail_a_finished_stage(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "logs").write_text("a file where the folder should be")
    done = ingest(tmp_path, str(tmp_path / "run"), stdout=subprocess.PIPE)
    assert done.returncode == OK, done.stderr
    assert done.stdout.count("the log cannot be written to the run") == 1
    assert Run(str(tmp_path / "run")).find("real")


def test_an_empty_run_is_refused_and_a_home_folder_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ingest(tmp_path, "", cwd=tmp_path, stdout=subprocess.PIPE)
    assert (done.returncode, "--run is empty" in done.stderr) == (BAD_INPUT, True)
    assert not (tmp_path / "runs").exists()
    for command in (["plan", "--what-if", "real=10"], ["theory", "r.yaml"], ["doctor"]):  # every command that takes --run
        with pytest.raises(BadInput, match="--run is empty"):
            build_parser().parse_args([*command, "--run", " "])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run("~/run").uri == str(tmp_path / "run")


@pytest.mark.parametrize(("before", "code"), [("SIG_DFL", INTERRUPTED), ("SIG_IGN", OK)])
def test_a_terminal_that_closes_stops_the_work_unless_it_is_ignored(before: str, code: int) -> None:
    program = (
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGHUP, signal.{before})\n"
        "from adainf.errors import Stopped\n"
        "from adainf.runtime import signals\n"
        "signals.install()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "except Stopped as error:\n    sys.exit(error.exit_code)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == code
