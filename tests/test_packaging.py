"""One version everywhere, a complete wheel, and workflows that GitHub accepts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from adainf import __version__
from adainf.kubernetes.render import render
from adainf.shards.format.manifest import ShardSet

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
DATA = {".html", ".js", ".css", ".svg", ".typed"}


def test_every_file_has_the_version_of_the_package() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    tagged = [
        *ROOT.glob("k8s/**/*.yaml"),
        *ROOT.glob("jobs/*.yaml"),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("images/*"),
    ]
    tags = {
        (str(path.relative_to(ROOT)), tag)
        for path in tagged
        if path.is_file()
        for tag in re.findall(r"adainf-[a-z-]+(?:, newTag)?: ?(\d+\.\d+[.\w]*)", path.read_text())
    }
    assert len(tags) > 10
    assert {tag for _, tag in tags} == {__version__}, tags


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("adainf", "recipes", "k8s", "images"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", command, str(folder)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    assert wheel.name == f"adainf-{__version__}-py3-none-any.whl"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT) for path in (ROOT / "adainf").rglob("*") if path.suffix in DATA | {".py"}}
    manifests = [path for path in (ROOT / "k8s").rglob("*") if path.suffix in (".yaml", ".example", ".txt")]
    shared = {path.relative_to(ROOT) for path in (*RECIPES, *manifests, ROOT / "images/matrix.yaml")}
    assert packed == {str(path) for path in files} | {f"adainf/share/{path}" for path in shared}
    assert "adainf/py.typed" in packed


def test_the_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Recipes by name and manifests, without the source tree."""
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()

    def adainf(*arguments: str) -> str:
        command = [sys.executable, "-m", "adainf", *arguments]
        environment = os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert yaml.safe_load(adainf("recipe", "show", "demo"))["name"] == "demo"
    assert "ingest: done" in adainf("run", "demo", "--until", "ingest")
    assert [path.name for path in empty.iterdir()] == ["runs"]
    assert ShardSet.model_validate(json.loads((empty / "runs/demo/real/manifest.json").read_bytes())["content"])
    if shutil.which("kubectl", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))):
        assert adainf("render", "--overlay", "cpu") == render(overlay="cpu")


# -------------------------------------------------------------------------------------------------------------- workflows


def workflow(name: str = "ci") -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    return found


def test_actionlint_accepts_the_workflows() -> None:
    binary = shutil.which("actionlint", path=sysconfig.get_path("scripts")) or shutil.which("actionlint")
    if binary is None:
        pytest.skip("no actionlint: pip install -e '.[dev]'")
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    done = subprocess.run([binary, "-no-color", *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_may_only_read_and_pin_their_actions() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    steps = [step for job in workflow()["jobs"].values() for step in job["steps"]]
    assert all(job.get("permissions") is None and job["timeout-minutes"] <= 90 for job in workflow()["jobs"].values())
    used = [step for step in steps if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert any(step.get("run") == "bash .ci/run" for step in steps)


def test_workflows_test_every_python_that_the_package_supports() -> None:
    pythons = workflow()["jobs"]["versions"]["strategy"]["matrix"]["python"]
    lowest = re.search(r'requires-python = ">=(\d+\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest
    assert pythons[0] == lowest[1]
    assert len(pythons) == 3
