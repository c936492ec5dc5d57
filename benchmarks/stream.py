"""The weighted shard stream beside its peers.

    python -m benchmarks.stream [--quick] [--json FILE] [--peers webdataset,litdata|none] [--only cached,faults]
                                [--data FOLDER] [--python mosaicml=/venv/bin/python]

Minutes with --quick, half an hour and 12 GB of disk without. The main figure is CPU time (user and system, children
included): other work on the machine hardly changes it. What is not installed is left out; a peer that cannot live in this
environment (mosaicml-streaming pins numpy<2.2) takes part by the interpreter of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import faults, limits, order, paced, speed, start
from benchmarks.common import Bench, Side, header, installed
from benchmarks.peers import SIDES
from benchmarks.server import serve

MEASUREMENTS = {
    "limits": limits.measure,
    "cached": speed.cached,
    "paced": paced.measure,
    "first-epoch": speed.first_epoch,
    "client": speed.client,
    "first-batch": start.first_batch,
    "resume": start.resume,
    "index": start.index,
    "shuffling": order.shuffling,
    "exactness": order.exactness,
    "faults": faults.measure,
}


def main() -> int:
    """The exit code: 1 where a measurement failed."""
    arguments = _arguments()
    sides, missing = _sides(arguments.peers, dict(pair.split("=", 1) for pair in arguments.python))
    header(sides, missing, arguments.quick)
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        data = Path(arguments.data or scratch).resolve()
        with serve(data / "server") as server:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
                os.environ.pop(name, None)
            os.environ.update(server.env())  # our sets are written from here
            bench = Bench(data, server, arguments.quick, sides)
            for name in arguments.only:
                began_s = time.monotonic()
                MEASUREMENTS[name](bench)
                print(f"  ({name}: {time.monotonic() - began_s:.0f} s)", flush=True)
                if arguments.json:  # each time, so that a run that is ended early leaves what it has found
                    Path(arguments.json).write_text(json.dumps(bench.figures, indent=2, sort_keys=True) + "\n")
    if bench.failures:
        print("\nfailed:\n" + "\n".join(f"  {failure}" for failure in bench.failures))
    return int(bool(bench.failures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of small sets: does it run, and about how fast")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    parser.add_argument("--peers", default=",".join(name for name in SIDES if name != "ours"), help="names, or none")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASUREMENTS), help=", ".join(MEASUREMENTS))
    parser.add_argument("--data", metavar="FOLDER", help="keep the sets here for the next run")
    parser.add_argument("--python", metavar="PEER=EXE", action="append", default=[], help="a peer's own interpreter")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(MEASUREMENTS):
        parser.error(f"--only: no measurement {', '.join(sorted(unknown))}")
    if unknown := set(arguments.peers.split(",")) - set(SIDES) - {"none"}:
        parser.error(f"--peers: no peer {', '.join(sorted(unknown))}")
    return arguments


def _sides(peers: str, pythons: dict[str, str]) -> tuple[list[Side], list[str]]:
    """Those that take part, we first, and the peers that are not installed."""
    sides, missing = [], []
    for name in ["ours", *(name for name in SIDES if name in peers.split(","))]:
        python = pythons.get(name, sys.executable)
        found = installed(python, SIDES[name].PACKAGE)
        if found:
            sides.append(Side(name, SIDES[name], python, found))
        else:
            missing.append(name)
    return sides, missing


if __name__ == "__main__":
    sys.exit(main())
