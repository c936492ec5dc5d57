"""The launcher of a stage: processes, signals, progress, and what is left when the pod has ended.

    python -m adainf.kubernetes.launcher STAGE RECIPE --run URI …

Arguments are those of ``adainf STAGE``; what the pod is comes from its environment (docs/launch.md). The stage runs below this
process, which therefore outlives it and can tell how it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adainf.cli.arguments import build_parser
from adainf.errors import INTERRUPTED, AdaInfError, BadInput
from adainf.kubernetes.launcher import tree
from adainf.kubernetes.launcher.env import Pod
from adainf.kubernetes.launcher.gang import run_gang
from adainf.kubernetes.launcher.output import Output
from adainf.kubernetes.launcher.record import SENTENCE, Record, reason_of, write_termination_log
from adainf.kubernetes.launcher.stop import Stop
from adainf.kubernetes.launcher.watch import Progress, serve
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import committed_pieces
from adainf.pipeline.stages import STAGES


def main(arguments: Sequence[str]) -> int:
    """Run the stage and leave the record; returns the exit code."""
    stop, output = Stop(), Output()
    tree.adopt_orphans()
    run: Run | None = None
    with tempfile.TemporaryDirectory(prefix="adainf-launch-") as folder:
        progress = Progress(arguments[0] if arguments else "", Path(folder) / "progress.json")
        os.environ |= {"ADAINF_PROGRESS_FILE": str(Path(folder) / "progress.json"), "PYTHONUNBUFFERED": "1"}
        try:
            parsed = _parse(arguments)
            run = Run(parsed.run)
            code = _launch(parsed.command, run, Pod.here(parsed.command), arguments, stop, progress)
        except AdaInfError as error:
            print(f"{SENTENCE}{error}", file=sys.stderr)
            code = error.exit_code
        tree.end()
        lines, now = output.close(), progress.now()
    _leave(run, Record(code, reason_of(code, lines), now["done"], now["total"], lines))
    return code


def _parse(arguments: Sequence[str]) -> Namespace:
    parsed = build_parser().parse_args(arguments)
    if parsed.command not in STAGES:
        raise BadInput(f"{parsed.command} is not a stage; the launcher runs {', '.join(STAGES)}")
    if parsed.run is None:
        raise BadInput("the launcher needs --run URI, where it leaves its record")
    return parsed


def _launch(stage: str, run: Run, pod: Pod, arguments: Sequence[str], stop: Stop, progress: Progress) -> int:
    try:
        serve(progress, pod.ip or "0.0.0.0", pod.progress_port)
    except OSError as error:
        print(f"/progress is not served: port {pod.progress_port}: {error.strerror}", file=sys.stderr)
    command = ["-m", "adainf", *arguments]
    if pod.nodes > 1 or pod.processes:
        return run_gang(pod, command, stop)
    before = committed_pieces(run, stage)
    code = _run_alone(command, stop)
    # The Job of such a stage starts an interrupted pod again as often as it comes: without progress it has failed.
    if code == INTERRUPTED and STAGES[stage].parallelism == "indexed" and committed_pieces(run, stage) == before:
        print(f"{SENTENCE}{stage}: stopped before anything new was in the store, which counts as a failure", file=sys.stderr)
        return 1
    return code


def _run_alone(command: Sequence[str], stop: Stop) -> int:
    process = subprocess.Popen([sys.executable, *command], start_new_session=True)
    if stop.received and not stop.passed_on:  # it came before there was anybody to tell
        stop.pass_on()
    code = process.wait()
    if stop.received and code == -signal.SIGTERM:  # before it could take signals over, so before anything began
        return INTERRUPTED
    return code if code >= 0 else 128 - code


def _leave(run: Run | None, record: Record) -> None:
    """Put the record where it outlives the pod. That it cannot be put anywhere does not change how the stage ended."""
    write_termination_log(record)
    if run is None:
        return
    name = f"{os.environ.get('JOB_NAME') or 'local'}-{os.environ.get('JOB_COMPLETION_INDEX') or 0}"
    with suppress(AdaInfError, ValueError):
        run.store.put(f"logs/pods/{name}.json", record.to_json())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
