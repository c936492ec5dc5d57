"""docs/extending.md is executed as written: its files are created, its diffs applied, and its recipe is run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(python|diff|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`([\w./]+)`:$", re.MULTILINE)
STAGES = ("ingest", "fit", "generate", "pretrain", "inventory")
RUN = f"""
from adainf.cli import main
for stage in {STAGES}:
    assert main([stage, "recipe.yaml", "--run", "run"]) == 0, stage
"""


def blocks() -> list[tuple[str, str, str]]:
    """(file, language, text) of every block; a block belongs to the file that was named last."""
    page = (ROOT / "docs/extending.md").read_text()
    return [(FILE.findall(page[: found.start()])[-1], found[1], found[2]) for found in BLOCK.finditer(page)]


def apply(file: Path, diff: str) -> None:
    """Replace the old lines of a diff by its new ones; the old ones must be in the file exactly once."""
    lines = diff.splitlines()
    old, new = ("\n".join(line[1:] for line in lines if line[:1] != without) + "\n" for without in "+-")
    text = file.read_text()
    assert text.count(old) == 1, f"{file}: found {text.count(old)} times:\n{old}"
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extended package and its recipe, run as far as pretraining."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "adainf", folder / "adainf", ignore=shutil.ignore_patterns("__pycache__"))
    for name, language, text in blocks():
        file = folder / name
        if language == "diff":
            apply(file, text)
        else:
            assert not file.exists(), f"{name} exists already"
            file.write_text(text)
    digits = load_digits()
    images = np.rint(digits.images[:300] * (255 / 16)).astype(np.uint8)
    np.save(folder / "digits.npy", np.repeat(images[..., None], 3, axis=3))
    np.save(folder / "digits.labels.npy", digits.target[:300].astype(np.int64))
    ran = python(folder, RUN)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / name / "manifest.json").read_text())
    return found


def test_the_copy_is_what_runs(extended: Path) -> None:
    found = python(extended, "import adainf; print(adainf.__file__)")
    assert Path(found.stdout.strip()) == extended / "adainf/__init__.py"


def test_the_new_source_is_ingested(extended: Path) -> None:
    real = manifest(extended, "real")["content"]
    assert real["origin"] == {"kind": "npy"}
    assert sum(split["images"] for split in real["splits"].values()) == 300


def test_the_new_generator_kind_is_fitted_and_generates(extended: Path) -> None:
    curve = manifest(extended, "generator")["content"]["curve"]
    assert curve[-1][1] < curve[0][1]
    generated = manifest(extended, "generated")["content"]
    assert generated["origin"]["kind"] == "gaussian"
    assert generated["splits"]["train"]["images"] == 64


def test_method_backbone_and_augmentation_are_used(extended: Path) -> None:
    card = json.loads((extended / "run/pretrain/vanilla/seed-0/encoder.json").read_text())
    assert (card["method"]["kind"], card["backbone"]["name"], card["features"]) == ("nt-logistic", "convnet", 64)
    settings = manifest(extended, "pretrain/vanilla/seed-0")["request"]["settings"]
    assert settings["augmentation"]["family"] == "crop-only"


def test_the_new_stage_runs_and_is_a_command(extended: Path) -> None:
    real = manifest(extended, "real")["content"]["splits"]
    counts = {name: split["images"] for name, split in real.items()}
    assert manifest(extended, "inventory")["content"] == {"real": counts, "generated": {"train": 64}}
    shown = python(extended, "from adainf.cli import main; main(['--help'])")
    assert re.search(r"^ +inventory\s+count the images of every set$", shown.stdout, re.MULTILINE), shown.stdout


def test_settings_are_exported_and_mistakes_name_the_new_kinds(extended: Path) -> None:
    code = "import sys, adainf.recipe as r; print(r.NtLogistic, r.Npy, r.Gaussian, 'torch' in sys.modules)"
    assert python(extended, code).stdout.split()[-1] == "False"
    text = (extended / "recipe.yaml").read_text()
    (extended / "wrong.yaml").write_text(text.replace("name: convnet", "name: convnext"))
    refused = python(extended, "from adainf.cli import main; main(['recipe', 'show', 'wrong.yaml'])")
    assert "pretrain.backbone.name is 'convnext'; input should be 'resnet18'" in refused.stderr
    assert "'convnet'" in refused.stderr
