"""The processes below this one, by /proc: to pass a signal on, and to leave none behind."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PATIENCE_S = 10.0


def adopt_orphans() -> None:
    """From now on a process whose parent below us dies becomes our child, not that of the machine's first process."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Our own children that are alive, adopted ones too."""
    return _below()[os.getpid()]


def end() -> None:
    """Kill all that runs below this process, and reap it."""
    deadline = time.monotonic() + _PATIENCE_S  # what the kernel holds cannot be killed: the container's end takes it
    while time.monotonic() < deadline and (found := _descendants()):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _descendants() -> list[int]:
    below, found = _below(), [os.getpid()]
    for pid in found:  # which grows
        found.extend(below[pid])
    return found[1:]


def _below() -> defaultdict[int, list[int]]:
    """Parent → children, of all processes that are not dead; the dead wait for their parent only."""
    below: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]  # a name may hold brackets
            if state not in "ZX":
                below[int(parent)].append(int(stat.parent.name))
    return below
