"""CPU at the pace of training: what a stream costs while the processor or the device computes."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import speed
from benchmarks.child import Values, cpu_s
from benchmarks.common import Bench, median, spread, table
from benchmarks.peers import ours

BATCH, PERIOD_S, WARM_STEPS = 64, 0.05, 40


def measure(bench: Bench) -> None:
    """``paced_cpu_us_per_image``: 64 images every 50 ms; ``idle_cpu_ms_per_s``: open, and nothing is asked of it."""
    folder = speed.sets(bench)
    if not bench.set_up(bench.job(bench.ours, "write", folder=str(folder))):
        return
    arguments = {"folder": str(folder), "steps": bench.pick(60, 400), "idle_s": bench.pick(3, 20)}
    found = bench.interleave({"paced": bench.task(__name__, "paced", **arguments)})["paced"]
    bench.figures["paced_cpu_us_per_image"] = median(found, "cpu_us_per_image")
    bench.figures["idle_cpu_ms_per_s"] = median(found, "idle_cpu_ms_per_s")
    row = (spread(found, "cpu_us_per_image"), spread(found, "idle_cpu_ms_per_s"))
    table("Cached, 64 images every 50 ms", ("CPU us/image", "idle: CPU ms/s"), [row])


def paced(folder: str, steps: int, idle_s: float) -> Values:
    """A child's task."""
    with ours.mixed(Path(folder) / "ours", global_batch=BATCH, cache=Path(folder) / "cache") as stream:
        for _ in range(WARM_STEPS):  # after them, all shards are known to be cached
            next(stream)
        stream.wait_until_filled()
        used_s, due_s = cpu_s(), time.perf_counter()
        for _ in range(steps):
            next(stream)
            due_s += PERIOD_S
            time.sleep(max(0.0, due_s - time.perf_counter()))
        used_s = cpu_s() - used_s
        idle_used_s = cpu_s()
        time.sleep(idle_s)
        idle_used_s = cpu_s() - idle_used_s
    return {"cpu_us_per_image": 1e6 * used_s / (steps * BATCH), "idle_cpu_ms_per_s": 1e3 * idle_used_s / idle_s}
