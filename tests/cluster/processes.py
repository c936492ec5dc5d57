"""Real pods: each container's command is a local process, with a separate loopback address per pod."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.scripts import Exit
from tests.cluster.store import Object

_MARK = "CLUSTER_POD_UID"
_INIT = ["tini", "--"]
_PROCESS_1 = ["env", "--ignore-signal=TERM"]
"""PID 1 of a container receives no SIGTERM before it has a handler. Behind `tini --` a process is not PID 1."""
_MESSAGE_BYTES, _LOG_BYTES = 4096, 2048
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Process:
    """A pod whose containers are real processes, with additional variables."""

    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A container, ready to start."""

    spec: Object
    words: list[str]
    env: dict[str, str]


class ProcessRun:
    """Runs the init containers one after another, then the container of the pod."""

    def __init__(self, uid: str, folder: Path, prepared: list[Prepared], python: str, wake: Callable[[], None]) -> None:
        self._uid, self._folder, self._python, self._wake = uid, folder, python, wake
        self._exit: Exit | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._thread = threading.Thread(target=self._run, args=(prepared,), name=f"pod-{uid}", daemon=True)
        self._thread.start()

    def poll(self) -> Exit | None:
        return self._exit

    def terminate(self) -> None:
        """Send SIGTERM to the process that would be PID 1."""
        self._asked = True
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to all processes of the pod, in all sessions."""
        self._asked = True
        mark = f"{_MARK}={self._uid}".encode()
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (each / "environ").read_bytes().split(b"\0"):
                    os.kill(int(each.name), signal.SIGKILL)
            except OSError:
                continue  # it has ended, or belongs to another user

    def end(self, how: Exit) -> None:
        raise NotImplementedError("a test cannot end a real process with an exit code: send it a signal")

    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _run(self, prepared: list[Prepared]) -> None:
        how = Exit(0)
        for each in prepared:
            if how.code == 0 and not self._asked:
                how = self._one(each)
        self._exit = how
        self._wake()

    def _one(self, container: Prepared) -> Exit:
        behind_init = container.words[: len(_INIT)] == _INIT
        words = container.words[len(_INIT) :] if behind_init else container.words
        if words[0] in ("python", "python3"):
            words = [self._python, *words[1:]]
        note = self._folder / f"termination-{container.spec['name']}"
        env = {
            **{name: value for name, value in os.environ.items() if name.startswith(("COVERAGE", "LC_", "OMP_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self._folder / "home"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "site"), str(_ROOT), *sys.path]),
            "ADAINF_TERMINATION_LOG": str(note), _MARK: self._uid, **container.env,
        }  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    words if behind_init else [*_PROCESS_1, *words],
                    env=env,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                return Exit(128, f"failed to create containerd task: {error}", "StartError")
            if self._asked:
                self._process.send_signal(signal.SIGTERM)
            code = self._process.wait()
        self.kill_rest()
        message = note.read_bytes()[:_MESSAGE_BYTES].decode(errors="replace") if note.exists() else ""
        if not message and code and container.spec["terminationMessagePolicy"] == "FallbackToLogsOnError":
            message = self.log()[-_LOG_BYTES:]
        return Exit(128 - code if code < 0 else code, message)

    def kill_rest(self) -> None:
        """Kill the other processes of a container, as at the end of PID 1."""
        asked = self._asked
        self.kill()
        self._asked = asked
