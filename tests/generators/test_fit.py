"""The loop of a fit: on several processes, killed and gone on with, looked at while it runs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adainf.errors import OK, BadInput
from adainf.generators.batches import Batches
from adainf.generators.diffusion import DiffusionTrainer
from adainf.pipeline.artifacts import Run
from adainf.pipeline.serialization import decode
from adainf.report.preview import IMAGES, Preview
from adainf.runtime import distributed
from tests.generators.tiny import OBJECTIVES, diffusion, noise_images, shake
from tests.processes import run_on_ranks
from tests.test_kill import checkpoint_key, stalled
from tests.tiny import RECIPE, adainf, write_recipe

CPU = torch.device("cpu")
CHANGED = RECIPE.replace(
    "generator:\n", "generator:\n  horizontal_flip: true\n  objective: {kind: stf, reference_images: 64}\n"
)


def gradients(name: str) -> tuple[list[torch.Tensor | None], float]:
    """Of one step on this process's rows, averaged over the processes; and the loss of the global batch."""
    config = diffusion(objective=OBJECTIVES[name], horizontal_flip=True)
    images = noise_images(64)
    trainer, batches = DiffusionTrainer(config, images, CPU), Batches(config, images, CPU)
    shake(trainer.denoiser)
    loss = distributed.mean_over_ranks(trainer.step(5, *batches.at(5)))
    return [parameter.grad for parameter in trainer.denoiser.parameters()], loss


def all_gradients() -> dict[str, tuple[list[torch.Tensor], float]]:
    return {name: gradients(name) for name in OBJECTIVES}


def on_two_ranks() -> dict[str, tuple[list[torch.Tensor], float]]:
    with pytest.raises(BadInput, match=r"generator.batch is 9, which is not divisible by 2 processes"):
        distributed.init_for_batch("generator.batch", 9)
    return all_gradients()


def test_two_processes_on_different_images_have_the_gradients_of_one() -> None:
    """Of every objective: images, noise, levels, mirroring and the reference batch are by step and row."""
    one = all_gradients()
    for rank in run_on_ranks(2, on_two_ranks):
        for name, (found, loss) in rank.items():
            expected, expected_loss = one[name]
            assert loss == pytest.approx(expected_loss, rel=1e-5)
            scale = max(gradient.abs().max().item() for gradient in expected)
            for mine, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6 * scale)


def fitted(run: Path) -> dict[str, torch.Tensor]:
    return decode((run / "generator" / "model.safetensors").read_bytes(), "generator")[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, run) of an uninterrupted fit; tests must not change it."""
    folder = tmp_path_factory.mktemp("fit")
    recipe = write_recipe(folder, CHANGED.replace("steps: 30", "steps: 10"))
    for stage in ("ingest", "fit"):
        done = adainf(stage, recipe, "--run", folder / "run")
        assert done.returncode == OK, done.stderr
    return recipe, folder / "run"


def test_killed_and_resumed_it_has_the_same_bytes(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, run = uninterrupted
    shutil.copytree(run / "real", tmp_path / "real")
    victim = stalled(checkpoint_key("generator", 6), "fit", recipe, tmp_path)
    victim.kill()
    victim.communicate(timeout=60)
    done = adainf("fit", recipe, "--run", tmp_path)
    assert done.returncode == OK, done.stderr
    for name in ("model.safetensors", "manifest.json"):
        assert (tmp_path / "generator" / name).read_bytes() == (run / "generator" / name).read_bytes()


def test_two_launched_processes_fit_the_generator_of_one(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """By the real launcher; float32 sums in another order differ in the last digits only."""
    recipe, run = uninterrupted
    shutil.copytree(run / "real", tmp_path / "real")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "adainf", "fit", str(recipe), "--run", str(tmp_path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == OK, done.stderr
    assert done.stdout.count("fit: done, 10 steps on 256 images on 2 processes") == 1, "one voice"
    expected, found = fitted(run), fitted(tmp_path)
    assert expected.keys() == found.keys()
    differences = torch.cat([(found[name] - value).flatten().abs() for name, value in expected.items()])
    # Adam moves a weight whose gradient is nearly 0 by the sign of its rounding.
    assert differences.mean() < 1e-6
    assert differences.max() < 1e-3
    assert not (tmp_path / "generator" / "checkpoints").exists()


def test_a_person_can_look_on_and_it_stays_cheap(tmp_path: Path) -> None:
    drawn = []

    def draw(indices: range) -> np.ndarray:
        drawn.append(indices)
        return noise_images(len(indices))

    store = Run(str(tmp_path)).store
    preview = Preview(store, lambda: draw, every_s=0)
    preview([(1, 2.0), (2, 1.0)])
    samples, loss = (Image.open(io.BytesIO(store.get(f"logs/fit/{name}.png"))) for name in ("samples", "loss"))
    assert samples.width > samples.height > 0
    assert loss.size == (720, 360)
    preview([(1, 2.0), (2, 1.0), (3, 0.5)])
    assert drawn == [range(IMAGES)], "the second time came before the first had been paid for"
