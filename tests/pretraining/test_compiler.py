"""Where torch.compile cannot work, one sentence reports it before anything is claimed, not a traceback at the first step."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from adainf.errors import BAD_INPUT, OK, BadInput
from adainf.pretraining.compiler import require_compiler
from tests.tiny import RECIPE, adainf, write_recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")


def test_a_recipe_is_refused_without_a_compiler_and_runs_when_fixed(tmp_path: Path) -> None:
    def pretrain(text: str) -> subprocess.CompletedProcess[str]:
        return adainf("pretrain", write_recipe(tmp_path, text), "--run", run, "--arm", "none")

    run, compiled = tmp_path / "run", RECIPE + "  compile: true\n"
    assert adainf("ingest", write_recipe(tmp_path), "--run", run).returncode == OK
    refused = pretrain(compiled)
    assert refused.returncode == BAD_INPUT
    assert "pretrain.compile needs a C++ compiler (g++)" in refused.stderr
    assert "Traceback" not in refused.stderr
    fixed = pretrain(RECIPE)
    assert fixed.returncode == OK, fixed.stderr  # the refused one has claimed nothing
    assert "was written by another recipe" in pretrain(compiled).stderr  # what is finished needs no compiler


def test_each_device_asks_for_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    (tmp_path / "Python.h").touch()
    with pytest.raises(BadInput, match=r"a C\+\+ compiler \(g\+\+\)"):
        require_compiler(CPU)
    with pytest.raises(BadInput, match=r"a C compiler \(gcc\)"):
        require_compiler(GPU)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "clang").touch(mode=0o755)
    require_compiler(GPU)
    monkeypatch.setenv("CXX", "icpx")
    require_compiler(CPU)


def test_headers_are_asked_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setenv("CC", "gcc")
    with pytest.raises(BadInput, match=r"needs the headers of Python \(python3-dev\)"):
        require_compiler(GPU)
