"""One measurement in a process of its own: ``python -m benchmarks.child MODULE FUNCTION ARGUMENTS``.

ARGUMENTS is a JSON object of keyword arguments. The function's values, a JSON object, are the last line of standard output.
It may run in the environment of a peer that cannot share ours: it needs no third package here.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

Values = dict[str, float]


def cpu_s() -> float:
    """User and system CPU seconds of this process, its threads and the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def drain(batches: Iterator[int], least_s: float = math.inf, warm_batches: int = 0) -> Values:
    """Take batches, whose sizes these are, for `least_s` seconds or to their end, after `warm_batches` that do not count.

    Values: CPU and wall µs per image, and the images counted. Raises `RuntimeError` where there was nothing to count.
    """
    for _ in range(warm_batches):
        next(batches)
    taken = 0
    began_s, used_s = time.perf_counter(), cpu_s()
    for size in batches:
        taken += size
        if time.perf_counter() - began_s >= least_s:
            break
    wall_s, used_s = time.perf_counter() - began_s, cpu_s() - used_s
    if not taken:
        raise RuntimeError("the loader gave no image")
    return {"cpu_us_per_image": 1e6 * used_s / taken, "wall_us_per_image": 1e6 * wall_s / taken, "images": taken}


def cached(peer: str, folder: str, variant: str, least_s: float) -> Values:
    """Steady state of a peer's loader over local disk or memory."""
    return drain(_ready(peer).cached(Path(folder), variant), least_s, warm_batches=8)


def first_epoch(peer: str, uri: str, variant: str) -> Values:
    """The first pass over a set: transfer, decoding and all."""
    with tempfile.TemporaryDirectory() as scratch:
        return drain(_ready(peer).first_epoch(uri, variant, Path(scratch)))


def deliver(peer: str, uri: str) -> Values:
    """How many different samples arrive in one pass over a set, in how many seconds, and whether it ended by an error."""
    arrived: set[object] = set()
    module = _ready(peer)
    began_s, failed = time.perf_counter(), 0
    try:
        with tempfile.TemporaryDirectory() as scratch:
            arrived.update(module.sample_ids(uri, Path(scratch)))
    except Exception as error:  # the peer's own kinds: that it ends is the finding
        print(f"{type(error).__name__}: {error}")
        failed = 1
    return {"samples": len(arrived), "wall_s": time.perf_counter() - began_s, "failed": failed}


def _ready(peer: str) -> ModuleType:
    """The peer's module, its libraries loaded: what an import costs is not what is measured."""
    module = importlib.import_module(peer)
    for library in module.IMPORTS:
        importlib.import_module(library)
    return module


def main() -> None:
    module, function, arguments = sys.argv[1:4]
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    values = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    os.write(answer, f"\n{json.dumps(values or {})}\n".encode())
    os._exit(0)  # some peers' threads do not let the interpreter end


if __name__ == "__main__":
    main()
