"""Launches a stage: starts processes, forwards signals, serves progress, and writes the termination record.

    python -m adainf.kubernetes.launcher STAGE RECIPE --run URI …

The arguments are those of ``adainf STAGE``. The pod is described by its environment (docs/launcher.md). The stage runs in child
processes, so the launcher outlives it and can record how it ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adainf.errors import INTERRUPTED, AdaInfError, BadInput
from adainf.kubernetes.launcher import tree
from adainf.kubernetes.launcher.env import Pod
from adainf.kubernetes.launcher.gang import run_gang
from adainf.kubernetes.launcher.output import Output
from adainf.kubernetes.launcher.record import MESSAGE_PREFIX, reason_of, write_termination_log
from adainf.kubernetes.launcher.stop import Stop, blocked
from adainf.kubernetes.launcher.watch import Progress, serve
from adainf.kubernetes.termination_record import TerminationRecord
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import committed_pieces
from adainf.pipeline.stages import STAGES


def main(arguments: Sequence[str]) -> int:
    """Run the stage and write its termination record. Returns the exit code."""
    stop = Stop()
    with blocked():
        output = Output()
    tree.adopt_orphans()
    run: Run | None = None
    with tempfile.TemporaryDirectory(prefix="adainf-launch-") as folder:
        progress = Progress(arguments[0] if arguments else "", Path(folder) / "progress.json")
        os.environ |= {"ADAINF_PROGRESS_FILE": str(Path(folder) / "progress.json"), "PYTHONUNBUFFERED": "1"}
        try:
            stage, uri = _parse(arguments)
            run = Run(uri)
            code = _launch(stage, run, Pod.here(stage), arguments, stop, progress)
        except AdaInfError as error:
            print(f"{MESSAGE_PREFIX}{error}", file=sys.stderr)
            code = error.exit_code
        tree.end()
        lines, now = output.close(), progress.now()
    _write_record(run, TerminationRecord(code, reason_of(code, lines), now["done"], now["total"], lines))
    return code


def _parse(arguments: Sequence[str]) -> tuple[str, str]:
    """The stage and the URI of its run. The stage's own process checks the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("stage", nargs="?", default="")
    parser.add_argument("--run")
    try:
        parsed, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise BadInput(f"the launcher cannot read its arguments ({error}): use STAGE RECIPE --run URI") from None
    if parsed.stage not in STAGES:
        raise BadInput(f"the launcher cannot run {parsed.stage!r}, which is not a stage: use one of {', '.join(STAGES)}")
    if not parsed.run:
        raise BadInput("the launcher has no run to write its termination record to: add --run URI")
    return parsed.stage, parsed.run


def _launch(stage: str, run: Run, pod: Pod, arguments: Sequence[str], stop: Stop, progress: Progress) -> int:
    try:
        with blocked():
            serve(progress, pod.ip or "0.0.0.0", pod.progress_port)
    except OSError as error:
        print(
            f"cannot serve /progress on port {pod.progress_port} ({error.strerror}): set ADAINF_PROGRESS_PORT to a free port",
            file=sys.stderr,
        )
    command = ["-m", "adainf", *arguments]
    if pod.nodes > 1 or pod.processes:
        return run_gang(pod, command, stop)
    before = committed_pieces(run, stage)
    code = _run_alone(command, stop)
    # The Job of such a stage restarts interrupted pods without a limit, so an interruption without progress is a failure.
    if code == INTERRUPTED and STAGES[stage].parallelism == "indexed" and committed_pieces(run, stage) == before:
        print(
            f"{MESSAGE_PREFIX}{stage} was interrupted before it committed anything to the store, which counts as a failure: "
            "raise terminationGracePeriodSeconds in its template",
            file=sys.stderr,
        )
        return 1
    return code


def _run_alone(command: Sequence[str], stop: Stop) -> int:
    process = subprocess.Popen([sys.executable, *command], start_new_session=True)
    if stop.received and not stop.passed_on:  # the signal arrived before the child existed
        stop.pass_on()
    code = process.wait()
    if stop.received and code == -signal.SIGTERM:  # before the child installed its handler, so before it did any work
        return INTERRUPTED
    return code if code >= 0 else 128 - code


def _write_record(run: Run | None, record: TerminationRecord) -> None:
    """Write the record to the termination log and the run. Errors are ignored: they must not change the exit code."""
    write_termination_log(record)
    if run is None:
        return
    name = f"{os.environ.get('JOB_NAME') or 'local'}-{os.environ.get('JOB_COMPLETION_INDEX') or 0}"
    with suppress(AdaInfError, ValueError):
        run.store.put(f"logs/pods/{name}.json", record.to_json())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
