"""Finds and kills the descendants of this process, by /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_KILL_TIMEOUT_S = 10.0


def adopt_orphans() -> None:
    """Make this process the subreaper of its descendants: it becomes the parent of orphans."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Pids of the live child processes, adopted orphans included."""
    return _below()[os.getpid()]


def handles(pid: int, number: int) -> bool:
    """Whether the process has installed a handler for the signal; without one most signals would end it."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    return False


def end() -> None:
    """Kill and reap all descendants."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S  # a process in uninterruptible sleep ends only with the container
    while time.monotonic() < deadline and (found := _descendants()):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        _reap()
    _reap()  # a process may end after the last iteration, and zombies are not in `_descendants`


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants() -> list[int]:
    below, found = _below(), [os.getpid()]
    for pid in found:  # grows while it is iterated
        found.extend(below[pid])
    return found[1:]


def _below() -> defaultdict[int, list[int]]:
    """Parent → children, of all processes that are not zombies."""
    below: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]  # a name may contain brackets
            if state not in "ZX":
                below[int(parent)].append(int(stat.parent.name))
    return below
