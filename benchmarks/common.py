"""What every measurement shares: who takes part, child processes, interleaved repeats, tables and the JSON of figures."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from benchmarks.child import Values
from benchmarks.server import Server

Key = TypeVar("Key", bound=Hashable)
ROOT = Path(__file__).parent.parent
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Threads that spin while they wait would count as work."""


@dataclass(frozen=True)
class Side:
    """One that takes part: we or a peer."""

    name: str
    module: ModuleType
    python: str
    version: str

    def figure(self, name: str, variant: str = "") -> str:
        """How a figure is called in the JSON: ours plainly, a peer's with its name (and variant) before."""
        return "_".join(part for part in ("" if self.name == "ours" else self.name, variant, name) if part)


@dataclass
class Bench:
    """One run of the benchmarks."""

    data: Path
    server: Server
    quick: bool
    sides: list[Side]
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def ours(self) -> Side:
        return self.sides[0]

    @property
    def repeats(self) -> int:
        return self.pick(1, 3)

    def pick(self, quick: Any, full: Any) -> Any:
        return quick if self.quick else full

    def having(self, attribute: str) -> list[Side]:
        """The sides whose module can do something."""
        return [side for side in self.sides if hasattr(side.module, attribute)]

    def job(self, side: Side, function: str, port: int | None = None, **arguments: Any) -> Job:
        """The measurement `function` of a side's module, not yet run; `port`: of a proxy for the server."""
        return Job(side.python, side.module.__name__, function, arguments, self.server.env(port))

    def generic(self, side: Side, module: ModuleType, function: str, port: int | None = None, **arguments: Any) -> Job:
        """The same for a function that all sides share: it is told the side's module as `peer`."""
        return Job(side.python, module.__name__, function, {"peer": side.module.__name__, **arguments}, self.server.env(port))

    def task(self, module: str, function: str, **arguments: Any) -> Job:
        """A measurement of ours alone."""
        return Job(self.ours.python, module, function, arguments, self.server.env())

    def set_up(self, job: Job) -> bool:
        """Run what must precede a measurement; False, and the reason printed, where it failed."""
        outcome = run(job)
        if isinstance(outcome, str):
            self.fail(job.name, outcome)
        return not isinstance(outcome, str)

    def attempt(self, what: str, work: Callable[..., object], *arguments: Any) -> bool:
        """The same for work in this process."""
        try:
            work(*arguments)
        except Exception as error:  # one measurement must not end the others
            self.fail(what, f"{type(error).__name__}: {error}")
            return False
        return True

    def fail(self, what: str, reason: str) -> None:
        self.failures.append(f"{what} failed: {reason}")
        print(f"  {self.failures[-1]}", flush=True)

    def interleave(self, jobs: Mapping[Key, Job], repeats: int | None = None) -> dict[Key, list[Values]]:
        """Run all jobs once, then all again, …, so that what else the machine does strikes all alike; a failed one no more."""
        found: dict[Key, list[Values]] = {name: [] for name in jobs}
        for _ in range(repeats or self.repeats):
            for name in list(found):
                outcome = run(jobs[name])
                if isinstance(outcome, str):
                    self.fail(jobs[name].name, outcome)
                    del found[name]
                else:
                    found[name].append(outcome)
        return found


@dataclass(frozen=True)
class Job:
    """A function of a benchmarks module, to be called in a fresh process of the interpreter `python`."""

    python: str
    module: str
    function: str
    arguments: dict[str, Any]
    env: dict[str, str]
    timeout_s: float = 900

    @property
    def name(self) -> str:
        told = [str(self.arguments[name]) for name in ("peer", "variant") if name in self.arguments]
        return f"{self.module}.{self.function}({', '.join(told)})".replace("benchmarks.", "")


def run(job: Job) -> Values | str:
    """The values, or why there are none."""
    command = [job.python, "-m", "benchmarks.child", job.module, job.function, json.dumps(job.arguments)]
    environment = {**os.environ, **THREADS, **job.env, "HF_HUB_OFFLINE": "1", "DISABLE_TELEMETRY": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes)
    try:
        output, problems = child.communicate(timeout=job.timeout_s)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)  # it and the processes that it started
        child.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"not done after {job.timeout_s:g} s"
        raise
    if child.returncode:
        lines = [line for line in problems.splitlines() if line and not line.startswith(" ")]
        return lines[-1][:300] if lines else f"exit code {child.returncode}"
    return json.loads(output.splitlines()[-1])


def installed(python: str, package: str) -> str | None:
    """The version of a package for an interpreter, or None."""
    if python == sys.executable:
        try:
            return version(package)
        except PackageNotFoundError:
            return None
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def header(sides: Sequence[Side], missing: Sequence[str], quick: bool) -> None:
    """Print where, with what and how this run measures."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"machine   {machine()}, {memory_gib:.0f} GiB, load {os.getloadavg()[0]:.1f}")
    versions = {name: installed(sys.executable, name) or "not installed" for name in ("numpy", "torch", "pillow", "boto3")}
    for side in sides:
        versions[side.module.PACKAGE] = side.version + ("" if side.python == sys.executable else " (in its own environment)")
    print(f"versions  python {platform.python_version()}, " + ", ".join(map(" ".join, versions.items())))
    for name in missing:
        print(f"          {name}: not installed")
    print(f"date      {time.strftime('%Y-%m-%d %H:%M')}, commit {commit()}")
    print(f"command   python -m {Path(sys.argv[0]).parent.name}.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}")
    repeats = "one fresh process" if quick else "three fresh processes, the sides in turn: median [min..max]"
    print(f"n         each figure from {repeats}; one thread for numerical libraries", flush=True)


def machine() -> str:
    """Processor, cores, and the GPUs, where there are any."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found = f"{cpu.partition(': ')[2]}, {os.cpu_count()} cores"
    if shutil.which("nvidia-smi") is None:
        return found
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpus = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return ", ".join([found, *gpus])


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if git("status", "--porcelain") else "")


def median(repeats: Sequence[Values], value: str) -> float:
    return statistics.median(each[value] for each in repeats)


def spread(repeats: Sequence[Values], value: str) -> str:
    """``median [min..max]``, the median alone where there is one repeat."""
    numbers = [each[value] for each in repeats]
    middle = short(statistics.median(numbers))
    return middle if len(numbers) == 1 else f"{middle} [{short(min(numbers))}..{short(max(numbers))}]"


def short(number: float) -> str:
    """Three significant digits."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: words to the left, numbers to the right."""
    print(f"\n{title}")
    if not rows:
        print("  nothing was measured", flush=True)
        return
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    for row in [columns, *rows]:
        cells = [cell.rjust(width) if _is_number(cell) else cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  " + "  ".join(cells).rstrip(), flush=True)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit()
