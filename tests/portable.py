"""``make test-portable``: the tests whose verdict follows from float results, once for each instruction set of this CPU.

Sums are rounded in another order with other vector instructions, so weights, features and scores differ in their last digits.
No verdict may. Exits with 1 where a test fails under any of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

VARIANTS = {
    "default": {},
    "no vector instructions in ATen": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2 in ATen": {"ATEN_CPU_CAPABILITY": "avx2"},
    "AVX2 in oneDNN": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
"""Environment variables of each run."""

PATHS = [
    "tests/evaluation",
    "tests/generators",
    "tests/inflation",
    "tests/models",
    "tests/pretraining",
    "tests/quality",
    "tests/stages/test_arms.py",
    "tests/stages/test_gan.py",
    "tests/stages/test_measure.py",
    "tests/stages/test_sources.py",
    "tests/stages/test_theory.py",
    "tests/theory",
]
"""Tests that train a network, or compare statistics of its features."""


def outcomes(environment: dict[str, str], paths: list[str]) -> dict[str, str]:
    """Test → passed, failed, error or skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}", "--numprocesses", "2"]
        # A cache of its own: torch.compile does not recognize what it compiled for another instruction set.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled", **environment}
        subprocess.run([*command, "--dist", "loadfile", *paths], env=environment, check=False)
        cases = ElementTree.parse(report).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
    return {"failure": "failed", "error": "error", "skipped": "skipped"}.get(next(iter(kinds), ""), "passed")


def main(paths: list[str]) -> int:
    """Run every variant and print what differs or fails."""
    found = {}
    for name, environment in VARIANTS.items():
        print(f"== {name}", flush=True)
        found[name] = outcomes(environment, paths or PATHS)
    wrong = 0
    for test in sorted(set().union(*found.values())):
        results = {name: result.get(test, "missing") for name, result in found.items()}
        if set(results.values()) - {"passed", "skipped"}:
            wrong += 1
            print(f"{test}: " + ", ".join(f"{name}: {result}" for name, result in results.items()))
    tests = len(next(iter(found.values())))
    print(f"{tests} tests under {len(found)} instruction sets: {wrong} failed or differed")
    return 1 if wrong or not tests else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
