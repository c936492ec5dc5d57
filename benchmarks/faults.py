"""Every fourth GET goes wrong: what arrives, and when."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import child
from benchmarks.common import Bench, run, table
from benchmarks.data import encoded, images, write_ours, write_tar
from tests.storage.faulty_proxy import Fault, FaultyProxy, Plan, Request

FAULTS: tuple[Fault, ...] = ("503", "cut", "stall")
SHARDS, SHARD = 10, 1000


def measure(bench: Bench) -> None:
    """``fault_*_samples`` and ``fault_*_s``: 10 shards of 1000, of us and of webdataset with boto3."""
    pixels = images(SHARDS * SHARD, 0)
    with tempfile.TemporaryDirectory() as scratch:
        np.save(f"{scratch}/generated.npy", pixels)
        samples = list(encoded(Path(scratch), "generated", "stored"))
        (tars := Path(scratch) / "tars").mkdir()
        for number in range(SHARDS):
            first = number * SHARD
            with (tars / f"{number:06d}.tar").open("wb") as file:
                write_tar(file, first, samples[first : first + SHARD], "png")
        places = {"webdataset": bench.server.upload(tars, "faulty/tars"), "ours": bench.server.uri("faulty/ours")}
    sides = [side for side in bench.having("sample_ids") if side.name in places]
    if not bench.attempt("our set of 10 shards", write_ours, places["ours"], pixels, SHARD):
        sides.remove(bench.ours)
    rows = []
    for fault, side in itertools.product(FAULTS, sides):
        with FaultyProxy(bench.server.port, every_fourth(fault)) as proxy:
            port = int(proxy.endpoint.rpartition(":")[2])
            job = bench.generic(side, child, "deliver", port=port, uri=places[side.name])
            outcome = run(job)
        if isinstance(outcome, str):
            bench.fail(f"{side.name} with {fault}", outcome)
            continue
        bench.figures[side.figure(f"fault_{fault}_samples")] = outcome["samples"]
        bench.figures[side.figure(f"fault_{fault}_s")] = outcome["wall_s"]
        end = "error" if outcome["failed"] else ""
        rows.append((fault, side.name, f"{outcome['samples']:,}", f"{outcome['wall_s']:.1f}", str(len(proxy.faults())), end))
    title = f"Every fourth GET of an object goes wrong: {SHARDS} shards of {SHARD}"
    table(title, ("fault", "side", "samples", "s", "faults met", "ended by"), rows)


def every_fourth(fault: Fault) -> Plan:
    """Of the GETs of objects; listings are let through."""
    number = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        if request.method != "GET" or "list-type" in request.path:
            return None
        return fault if next(number) % 4 == 0 else None

    return plan
