"""What users do with a finished encoder: embed, transfer, export; as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adainf.errors import BAD_INPUT, OK
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all
from tests.tiny import RECIPE, adainf, artifact_hashes, make_older, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of arm `none` alone, evaluated. Tests must not change it."""
    folder = tmp_path_factory.mktemp("encoders")
    recipe = write_recipe(folder, RECIPE.replace("plan:", "arms: [none]\nplan:").replace("steps: 12", "steps: 4"))
    done = adainf("run", recipe, "--run", folder / "run")
    assert done.returncode == OK, done.stderr
    return folder / "run"


def weights(run: Path) -> Path:
    return run / "pretrain" / "none" / "seed-0" / "encoder.safetensors"


def test_embedded_features_are_the_encoders_of_every_image_once(run: Path, tmp_path: Path) -> None:
    before = artifact_hashes(run)
    done = adainf("embed", run, "--arm", "none", "--data", run / "real", "-o", tmp_path / "features.npz")
    assert done.returncode == OK, done.stderr
    found = np.load(tmp_path / "features.npz")
    folder = ShardFolder.open(str(run / "real"))
    encoder = Encoder.from_bytes(weights(run).read_bytes(), "encoder").eval()
    for split in ("train", "validation", "test"):
        images, labels = read_all.read_split(folder, split)
        here = found["splits"] == split
        np.testing.assert_array_equal(found["labels"][here], labels)
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(np.array(images))).numpy()
        np.testing.assert_allclose(found["features"][here], expected, atol=1e-4)
    assert len(set(zip(found["splits"], found["keys"], strict=True))) == len(found["keys"])
    assert artifact_hashes(run) == before


def test_an_encoder_file_embeds_other_peoples_images(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", image=pixels)
    arguments = ("--encoder", weights(run), "--data", tmp_path / "mine.npz")
    done = adainf("embed", *arguments, "-o", tmp_path / "a.npz")
    assert done.returncode == OK, done.stderr
    found = np.load(tmp_path / "a.npz")
    assert found["features"].shape == (5, 128)
    assert (found["labels"] == -1).all()
    assert adainf("embed", *arguments, "-o", tmp_path / "b.npz").returncode == OK
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_transfer_to_the_same_data_is_what_evaluate_found(run: Path) -> None:
    done = adainf("transfer", run, "--arm", "none", "--data", run / "real", "--json")
    assert done.returncode == OK, done.stderr
    found = json.loads(done.stdout)
    manifest = Run(str(run)).find("evaluate/none")
    assert manifest is not None
    judged = manifest.content["seeds"]["0"]["measures"]
    assert [(one["protocol"], one["accuracy"]) for one in found["measures"]] == [
        (one["protocol"], one["accuracy"]) for one in judged
    ]
    for one in found["measures"]:
        low, high = one["interval"]
        assert low < one["accuracy"] < high
        assert one["split"] == "test"


def test_two_processes_measure_what_one_does_to_the_byte(run: Path, tmp_path: Path) -> None:
    """By the real launcher; the batch makes the last process's share of the features another than the first's."""
    text = RECIPE.replace("plan:", "arms: [none]\nevaluate: {batch: 50}\nplan:").replace("steps: 12", "steps: 4")
    recipe, two = write_recipe(tmp_path, text), tmp_path / "run"
    shutil.copytree(run, two)
    shutil.rmtree(two / "evaluate")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "adainf.evaluate"]
    command += [str(recipe), "--run", str(two)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == OK, done.stderr
    assert done.stdout.count("evaluate none: done") == 1, "one voice, whatever the number of processes"
    for name in ("none.json", "untrained.json"):
        assert (two / "evaluate" / name).read_bytes() == (run / "evaluate" / name).read_bytes()


def test_export_carries_the_results(run: Path, tmp_path: Path) -> None:
    done = adainf("export", run, "--arm", "none", "-o", tmp_path / "out")
    assert done.returncode == OK, done.stderr
    assert (tmp_path / "out" / "encoder.safetensors").read_bytes() == weights(run).read_bytes()
    card = json.loads((tmp_path / "out" / "encoder.json").read_text())
    assert card["arm"] == "none"
    assert {one["protocol"] for one in card["results"]} == {"linear", "knn", "knn-weighted"}
    assert card["made_from"].keys() == {"real"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["embed", "RUN", "--data", "RUN/real", "-o", "x.npz"], "--arm is missing"),
        (
            ["embed", "RUN", "--arm", "best", "--data", "RUN/real", "-o", "x.npz"],
            "has no finished encoder of arm 'best'; choose from: --arm",
        ),
        (["embed", "RUN", "--arm", "none", "--data", "nowhere", "-o", "x.npz"], "nowhere"),
        (["embed", "RUN", "--arm", "none", "--data", "RUN/real", "--split", "dev", "-o", "x.npz"], "no images in split 'dev'"),
        (["embed", "--data", "RUN/real", "-o", "x.npz"], "no single encoder is selected"),
        (
            ["embed", "--encoder", "RUN/plan.json", "--data", "RUN/real", "-o", "x.npz"],
            "is not a file; give the encoder.safetensors",
        ),
        (["transfer", "--encoder", "RUN/real/manifest.json", "--data", "RUN/real"], "is corrupt"),
        (["export", "RUN", "--arm", "none", "--seed", "9", "-o", "out"], "no finished encoder of arm 'none' and seed 9"),
    ],
)
def test_bad_input_is_one_sentence(run: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    given = [argument.replace("RUN", str(run)).replace("x.npz", str(tmp_path / "x.npz")) for argument in arguments]
    done = adainf(*given)
    assert done.returncode == BAD_INPUT, (done.returncode, done.stderr)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.npz").exists()


def test_results_of_another_encoder_are_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    make_older(tmp_path / "run/pretrain/none/seed-0/manifest.json")
    done = adainf("export", tmp_path / "run", "--arm", "none", "-o", tmp_path / "out")
    assert done.returncode == BAD_INPUT
    assert "is about another encoder" in done.stderr
