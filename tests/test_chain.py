"""The pipeline as a user runs it: to the end, again, on S3, on two processes, with stop requests, and with invalid input."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.graph import build_graph
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.serialization import decode
from tests.tiny import RECIPE, adainf, artifact_hashes, make_older, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(recipe, run folder, standard output) of one uninterrupted run. Tests must not change it."""
    folder = tmp_path_factory.mktemp("chain")
    recipe = write_recipe(folder)
    done = adainf("run", recipe, "--run", folder / "run")
    assert done.returncode == OK, done.stderr
    return recipe, folder / "run", done.stdout


def test_every_artifact_exists_and_the_arms_are_named(finished: tuple[Path, Path, str]) -> None:
    recipe, folder, printed = finished
    run = Run(str(folder))
    assert all(run.find(name) for name in build_graph(load_recipe(recipe)))
    assert (folder / "report" / "index.html").read_text().startswith("<!doctype html>")
    for word in ("none", "vanilla", "adainf", "untrained", "chance", str(folder / "report" / "index.html")):
        assert word in printed
    leftovers = [key for key in artifact_hashes(folder) if "checkpoint" in key]
    assert leftovers == []


def test_useless_images_make_arm_adainf_equal_to_none(finished: tuple[Path, Path, str]) -> None:
    """Thirty steps do not fit a generator: the plan excludes its images, and the encoder is that of only the real images."""
    _, folder, printed = finished
    assert "the generated images are left out" in printed
    none, adainf, vanilla = (
        (folder / f"pretrain/{arm}/seed-0/encoder.safetensors").read_bytes() for arm in ("none", "adainf", "vanilla")
    )
    assert adainf == none != vanilla


def written(folder: Path) -> dict[str, int]:
    return {key: (folder / key).stat().st_mtime_ns for key in artifact_hashes(folder)}


def test_a_second_run_skips_every_stage_with_the_reason(finished: tuple[Path, Path, str]) -> None:
    recipe, folder, _ = finished
    before = written(folder)
    again = adainf("run", recipe, "--run", folder)
    assert again.returncode == OK
    assert again.stdout.count("done already") == len(build_graph(load_recipe(recipe))) + 1  # and the report
    assert written(folder) == before


def test_the_same_run_on_s3_stage_by_stage_is_the_same_bytes(finished: tuple[Path, Path, str], s3_env: str) -> None:
    """Also tests the single commands, each in its own process, which share only the store."""
    recipe, folder, _ = finished
    before = [["ingest"], ["fit"], ["generate"], ["pretrain", "--arm", "none"], ["measure"], ["plan"]]
    for stage, *options in (*before, ["pretrain"], ["evaluate"], ["report"]):
        done = adainf(stage, recipe, "--run", s3_env, *options)
        assert done.returncode == OK, done.stderr
    assert artifact_hashes(s3_env) == artifact_hashes(folder)


def test_stream_settings_change_no_byte(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    """On the device or not, prefetched or not, checked often or not: the same encoder."""
    _, folder, _ = finished
    stream = "pretrain:\n  stream: {on_device: true, prefetch_batches: 0, check_every_steps: 1}"
    recipe = write_recipe(tmp_path, RECIPE.replace("pretrain:", stream))
    for name in ("real", "generator", "generated"):
        shutil.copytree(folder / name, tmp_path / "run" / name)
    done = adainf("pretrain", recipe, "--run", tmp_path / "run", "--arm", "vanilla")
    assert done.returncode == OK, done.stderr
    there = artifact_hashes(tmp_path / "run")
    assert there == {key: value for key, value in artifact_hashes(folder).items() if key in there}
    assert "pretrain/vanilla/seed-0/manifest.json" in there


def test_monitors_change_no_byte(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    """With the online probe and nearest neighbours in the log the encoder is that of a run without them."""
    _, folder, _ = finished
    watched = "pretrain:\n  monitor: {online_probe: true, knn_every_steps: 4}"
    recipe = write_recipe(tmp_path, RECIPE.replace("pretrain:", watched))
    shutil.copytree(folder / "real", tmp_path / "run" / "real")
    done = adainf("pretrain", recipe, "--run", tmp_path / "run", "--arm", "none")
    assert done.returncode == OK, done.stderr
    there = artifact_hashes(tmp_path / "run")
    assert there == {key: value for key, value in artifact_hashes(folder).items() if key in there}
    lines = [json.loads(line) for log in (tmp_path / "run" / "logs").rglob("*.jsonl") for line in log.read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8, 10, 12]
    for line in steps:
        assert 0 <= line["probe_accuracy"] <= 1
        assert ("knn_accuracy" in line) == (line["step"] % 4 == 0)
        assert line["real_images"] == 32 * line["step"]


def write_captioned_tar(path: Path, images: int, captions: int) -> None:
    """Noise images; the first `captions` of them have a .txt."""
    noise = np.random.default_rng(0).integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    with tarfile.open(path, "w") as tar:
        for number, pixels in enumerate(noise):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            files = {f"{number:06d}.png": png.getvalue(), f"{number:06d}.txt": f"thing {number}".encode()}
            for name, data in list(files.items())[: 2 if number < captions else 1]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def test_clip_trains_on_tars_with_captions_and_names_an_image_without_one(tmp_path: Path) -> None:
    real = f"{{kind: shards, path: {tmp_path}, validation_fraction: 0, test_fraction: 0}}"
    method = "{kind: clip, text_width: 16, projector_out: 8}"
    text = RECIPE.replace("{kind: digits, train_limit_images: 256}", real).replace("plan:", "arms: [none]\nplan:")
    text = text.replace("{kind: simclr, projector_hidden: 32, projector_out: 16}", method)
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    write_captioned_tar(tmp_path / "a.tar", images=80, captions=79)
    assert adainf("ingest", recipe, "--run", run).returncode == OK
    assert "sample 000079 (image 79 of train) has no caption" in sentence("pretrain", recipe, "--run", run)
    assert not (run / "pretrain").exists(), "nothing was claimed: another method can still be chosen"
    shutil.rmtree(run)
    write_captioned_tar(tmp_path / "a.tar", images=80, captions=80)
    done = adainf("run", recipe, "--run", run)
    assert done.returncode == OK, done.stderr


def test_windows_are_part_of_the_experiment_and_train_too(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, folder, _ = finished
    recipe = write_recipe(tmp_path, RECIPE.replace("pretrain:", "pretrain:\n  stream: {window_shards: 2}"))
    shutil.copytree(folder, tmp_path / "run")
    assert "window_shards: null stored, 2 requested" in sentence(
        "pretrain", recipe, "--run", tmp_path / "run", "--arm", "vanilla"
    )
    shutil.rmtree(tmp_path / "run" / "pretrain")
    done = adainf("pretrain", recipe, "--run", tmp_path / "run", "--arm", "vanilla")
    assert done.returncode == OK, done.stderr
    trained = (tmp_path / "run" / "pretrain" / "vanilla" / "seed-0" / "encoder.safetensors").read_bytes()
    assert trained != (folder / "pretrain" / "vanilla" / "seed-0" / "encoder.safetensors").read_bytes()


def launch(processes: int, recipe: Path, run: Path) -> subprocess.CompletedProcess[str]:
    """Arm `none` by the launcher, as in docs/recipes.md."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", "adainf.pretrain", str(recipe), "--run", str(run), "--arm", "none"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def encoder_weights(run: Path) -> dict[str, torch.Tensor]:
    return decode((run / "pretrain" / "none" / "seed-0" / "encoder.safetensors").read_bytes(), "encoder")[0]


def test_two_processes_with_half_the_batch_train_the_encoder_of_one(tmp_path: Path) -> None:
    """By the real launcher, on different data per rank; float32 sums in another order differ in the last digits only."""
    recipe = write_recipe(tmp_path, RECIPE.replace("  steps: 12\n", "  steps: 5\n"))
    one, two = tmp_path / "one", tmp_path / "two"
    assert adainf("ingest", recipe, "--run", one).returncode == OK
    shutil.copytree(one, two)
    assert adainf("pretrain", recipe, "--run", one, "--arm", "none").returncode == OK
    done = launch(2, recipe, two)
    assert done.returncode == OK, done.stderr
    assert done.stdout.count("pretrain none (seed 0): done") == 1, "printed once, for any number of processes"
    assert "on 2 processes" in done.stdout
    expected, found = encoder_weights(one), encoder_weights(two)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


def test_a_batch_that_the_processes_do_not_divide_is_refused_before_the_claim(tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, RECIPE.replace("global_batch: 32", "global_batch: 31")), tmp_path / "run"
    assert adainf("ingest", recipe, "--run", run).returncode == OK
    done = launch(2, recipe, run)
    assert done.returncode != OK
    assert "pretrain.global_batch is 31, which is not divisible by 2 processes" in done.stderr
    assert not (run / "pretrain").exists()


@pytest.mark.parametrize(("stage", "folder"), [("fit", "generator"), ("pretrain", "pretrain/none/seed-0")])
def test_a_stop_request_saves_the_current_step(tmp_path: Path, stage: str, folder: str) -> None:
    """Between two regular checkpoints: SIGUSR1 and SIGUSR2 save, SIGTERM ends with 75 and the checkpoint of its message."""
    text = re.sub(r"  (checkpoint_every_steps|steps): \d+\n", r"  \1: 20000\n", RECIPE)
    text = re.sub(r"  log_every_steps: \d+\n", "  log_every_steps: 1\n", text)
    recipe, run, progress = write_recipe(tmp_path, text), tmp_path / "run", tmp_path / "progress.json"
    assert adainf("ingest", recipe, "--run", run).returncode == OK
    arguments = ["--arm", "none"] if stage == "pretrain" else []
    command = [sys.executable, "-m", "adainf", stage, str(recipe), "--run", str(run), *arguments]
    environment = {**os.environ, "ADAINF_PROGRESS_FILE": str(progress)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (progress.exists() and json.loads(progress.read_text())["done"] > 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stored = 0
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # a checkpoint each, and the work continues
        process.send_signal(number)
        before = stored
        while (stored := Checkpoints(Run(str(run)), folder).newest() or 0) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, errors
    assert f"a signal requested the checkpoint of step {stored}" in output
    found = re.search(r"saved at step (\d+) of 20000; run the same command again to resume", errors)
    assert found, errors
    saved = Checkpoints(Run(str(run)), folder)
    step = saved.newest()
    assert step == int(found[1]) > stored > 0
    if stage == "pretrain":
        assert saved.load(step)[1]["stream"]["step"] == step


def test_import_is_quick_and_free_of_torch() -> None:
    code = "import sys, time; t = time.perf_counter(); import adainf; print(time.perf_counter() - t)"
    code += "; import adainf.cli, adainf.pipeline.graph; print('torch' in sys.modules, 'boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.split("\n")[:2]
    assert modules == "False False"
    assert float(seconds) < 0.2


def sentence(*arguments: str | Path, **environment: str) -> str:
    """The error of a command that must fail as bad input: one line, no traceback."""
    done = adainf(*arguments, **environment)
    assert done.returncode == BAD_INPUT, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("adainf: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_bad_commands_are_bad_input(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert "invalid choice: 'trian'" in sentence("trian")
    assert "no such recipe" in sentence("run", tmp_path / "nothing.yaml")
    assert "--arm best is not one of the recipe's arms (none, none-weak, vanilla, adainf)" in sentence(
        "pretrain", recipe, "--arm", "best"
    )
    assert "--seed 7 is not one of pretrain.seeds (0)" in sentence("pretrain", recipe, "--seed", "7")
    assert "is missing: run `adainf ingest RECIPE`" in sentence("fit", recipe, "--run", tmp_path / "empty")
    assert not (tmp_path / "empty").exists() or not artifact_hashes(tmp_path / "empty")


def test_a_run_of_another_recipe_is_refused_and_not_changed(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, folder, _ = finished
    before = artifact_hashes(folder)
    other = write_recipe(tmp_path, RECIPE.replace("train_limit_images: 256", "train_limit_images: 200"))
    found = sentence("run", other, "--run", folder)
    assert "real/ was written by another recipe" in found
    assert "settings.train_limit_images: 256 stored, 200 requested" in found
    other = write_recipe(tmp_path, RECIPE.replace("steps: 30", "steps: 31"))
    for stage in ("fit", "generate", "report"):  # a single later stage must not use artifacts of another recipe
        assert "generator/ was written by another recipe" in sentence(stage, other, "--run", folder)
    assert artifact_hashes(folder) == before


def test_an_artifact_made_from_an_older_input_is_refused(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    recipe, folder, _ = finished
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    make_older(run / "real/manifest.json")
    assert "generator/ was written by another recipe or from other inputs (inputs.real" in sentence(
        "generate", recipe, "--run", run
    )


@pytest.mark.parametrize("corruption", ["truncate", "flip", "remove"])
def test_corrupt_shards_are_refused_by_name(finished: tuple[Path, Path, str], tmp_path: Path, corruption: str) -> None:
    recipe, folder, _ = finished
    run = tmp_path / "run"
    shutil.copytree(folder / "real", run / "real")
    tar = run / "real" / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    if corruption == "truncate":
        tar.write_bytes(data[: len(data) // 2])
    elif corruption == "flip":
        data[len(data) // 2] ^= 1
        tar.write_bytes(data)
    else:
        tar.unlink()
    found = sentence("fit", recipe, "--run", run)
    assert "real/train-000000.tar" in found
    assert "recreate the " in found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "global_batch: 32",
            "global_batch: 300",
            "pretrain.global_batch is 300, of which arm 'none' would take 300, more than",
        ),
        ("  batch: 32", "  batch: 300", "generator.batch is 300, more than the 256 real training images"),
        (
            "  batch: 32",
            "  objective: {kind: stf, reference_images: 300}\n  batch: 32",
            "generator.objective.reference_images is 300, more than the 256 real training images",
        ),
        ("multipliers: [1, 2]", "multipliers: [1, 2, 2, 2, 2]", "generator.unet with 5 resolutions"),
        ("kind: digits", "kind: folder, path: /nonexistent/images", "/nonexistent/images"),
    ],
)
def test_recipes_that_do_not_fit_the_data_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace(old, new))
    assert words in sentence("run", recipe, "--run", tmp_path / "run")
    if "/nonexistent" not in new:  # and the fix works: nothing was claimed for the invalid recipe
        assert not (tmp_path / "run" / "generator").exists()
        assert not (tmp_path / "run" / "pretrain").exists()


@pytest.mark.parametrize(("split", "printed"), [("validation", "untrained"), ("test", "no labelled test images")])
def test_without_a_held_out_split_it_still_finishes(tmp_path: Path, split: str, printed: str) -> None:
    real = f"{{kind: digits, train_limit_images: 256, {split}_fraction: 0}}"
    text = RECIPE.replace("{kind: digits, train_limit_images: 256}", real).replace("plan:", "arms: [none]\nplan:")
    recipe = write_recipe(tmp_path, text.replace("steps: 12", "steps: 2"))
    done = adainf("run", recipe, "--run", tmp_path / "run")
    assert done.returncode == OK, done.stderr
    assert printed in done.stdout


def test_a_loss_that_is_not_finite_fails_permanently_and_releases_the_folder(tmp_path: Path) -> None:
    text = RECIPE.replace("plan:", "arms: [none]\nplan:").replace(
        "  steps: 12", "  optimizer: {learning_rate: 1e20, clip: false}\n  steps: 12"
    )
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    assert adainf("ingest", recipe, "--run", run).returncode == OK
    failed = adainf("pretrain", recipe, "--run", run)
    assert failed.returncode == STAGE_FAILED, failed.stderr
    assert "lower pretrain.optimizer.learning_rate" in failed.stderr
    fixed = write_recipe(tmp_path, RECIPE.replace("plan:", "arms: [none]\nplan:"))
    assert adainf("pretrain", fixed, "--run", run).returncode == OK


def test_a_stop_while_images_are_read_is_not_mistaken_for_corruption(tmp_path: Path) -> None:
    """SIGTERM inside a decoder: exit 75, and the finished shards stay."""
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    for number in range(60):
        Image.fromarray(np.roll(noise, number, axis=0)).save(images / f"{number:03d}.png")  # no copies of each other
    text = RECIPE.replace("{kind: digits, train_limit_images: 256}", f"{{kind: folder, path: {images}, shard_images: 2}}")
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "adainf", "ingest", str(recipe), "--run", str(run)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not (run / "real" / f"train-{2 * attempt:06d}.index.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == INTERRUPTED, errors
        assert (run / "real" / f"train-{2 * attempt:06d}.tar").exists()


def test_stores_that_cannot_be_used_are_refused(tmp_path: Path, s3_env: str) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in sentence("ingest", recipe, "--run", tmp_path / "file")
    assert "no-such-bucket" in sentence("ingest", recipe, "--run", "s3://no-such-bucket/run")
    wrong = sentence("ingest", recipe, "--run", s3_env, AWS_SECRET_ACCESS_KEY="wrong-secret")
    assert "wrong-secret" not in wrong
    assert "credentials" in wrong


def test_unlabelled_images_work_and_only_the_probes_are_missing(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.full(80, -1))
    text = RECIPE.replace("{kind: digits, train_limit_images: 256}", f"{{kind: npz, path: {tmp_path / 'images.npz'}}}")
    recipe = write_recipe(tmp_path, text.replace("plan:", "arms: [none]\nplan:").replace("steps: 12", "steps: 2"))
    done = adainf("run", recipe, "--run", tmp_path / "run")
    assert done.returncode == OK, done.stderr
    assert "no labels" in done.stdout


def test_output_to_a_file_is_plain_lines(tmp_path: Path) -> None:
    """A file or a cluster's log gets no escape codes and no carriage returns, and lines arrive during the work."""
    recipe = write_recipe(tmp_path, RECIPE.replace("  steps: 30\n", "  steps: 100000\n"))
    assert adainf("ingest", recipe, "--run", tmp_path / "run").returncode == OK
    command = [sys.executable, "-m", "adainf", "fit", str(recipe), "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert process.poll() is None, "it came at the end of the work"
    process.kill()
    process.wait()
    assert line.startswith("fit: ")
    assert "\x1b" not in line
    assert "\r" not in line
