"""The ceiling on real digits: its parts, reuse, interruption, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from adainf import cli
from adainf.errors import BAD_INPUT, INTERRUPTED, OK, BadInput, Interrupted
from adainf.inflation.ceiling import Ceiling
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe
from adainf.runtime import signals
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.loader.read_all import read_split
from adainf.stages.ceiling import ceiling
from tests.tiny import RECIPE, artifact_hashes, write_recipe

TEXT = RECIPE.replace("train_limit_images: 256", "train_limit_images: 128").replace("steps: 12", "steps: 4")
SILENT = Reporter(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run, Ceiling]:
    """A recipe, a run with nothing but its ceiling, and the result. Tests must not change it."""
    folder = tmp_path_factory.mktemp("ceiling")
    recipe, run = load_recipe(write_recipe(folder, TEXT)), Run(str(folder / "run"))
    return recipe, run, ceiling(recipe, run, SILENT, seeds=2)


def test_half_of_the_real_images_is_inflated_by_the_other_half_drawn_again_for_each_seed(
    made: tuple[Recipe, Run, Ceiling],
) -> None:
    """Would catch an image in both parts, one draw for all seeds, and labels of other images."""
    _, run, found = made
    assert (found.real_images, found.held_out_images, found.seeds) == (64, 64, [0, 1])
    manifest = run.find("real")
    assert manifest is not None
    train = read_split(ShardFolder.of(run, "real", manifest), "train")
    everything = sorted((image.tobytes(), label) for image, label in zip(*train, strict=True))
    [digest] = {key.split("/")[1] for key in artifact_hashes(run.uri) if key.startswith("ceiling/")}
    draws = []
    for seed in (0, 1):
        parts = []
        for part in ("real", "held-out"):
            name = f"ceiling/{digest}/seed-{seed}/{part}"
            committed = run.find(name)
            assert committed is not None
            parts.append(read_split(ShardFolder.of(run, name, committed), "train"))
        both = [(image.tobytes(), label) for part in parts for image, label in zip(*part, strict=True)]
        assert sorted(both) == everything
        draws.append(parts[0].images)
    assert not np.array_equal(draws[0], draws[1])


def test_every_arm_is_judged_on_validation_by_probe_and_neighbours(made: tuple[Recipe, Run, Ceiling]) -> None:
    _, run, found = made
    manifest = run.find("real")
    assert manifest is not None
    images = manifest.content_as(ShardSet).splits["validation"].images
    assert (found.judged_by, found.validation_images) == ("linear", images)
    assert list(found.scores) == list(found.knn_scores) == ["none", "none-weak", "inflated", "same-class"]
    assert [gain.over for gain in found.gains] == [gain.over for gain in found.knn_gains] == ["none-weak", "none"]
    means = {arm: sum(values.values()) / 2 for arm, values in found.scores.items()}
    assert found.gains[0].difference == pytest.approx(means["inflated"] - means["none-weak"], abs=1e-6)
    assert found.positives is not None
    assert found.positives.difference == pytest.approx(means["same-class"] - means["none-weak"], abs=1e-6)
    assert found.fit_seconds is not None
    assert not any("checkpoint" in key for key in artifact_hashes(run.uri))


def test_candidates_are_other_images_of_the_same_class(made: tuple[Recipe, Run, Ceiling]) -> None:
    """Would catch an image that is its own candidate, and candidates that are not aligned with their parents."""
    _, run, _ = made
    [digest] = {key.split("/")[1] for key in artifact_hashes(run.uri) if key.startswith("ceiling/")}
    sets = {}
    for name in ("real", "candidates"):
        committed = run.find(f"ceiling/{digest}/seed-0/{name}")
        assert committed is not None
        sets[name] = read_split(ShardFolder.of(run, f"ceiling/{digest}/seed-0/{name}", committed), "train")
    parents, candidates = sets["real"], sets["candidates"]
    assert np.array_equal(candidates.labels, np.tile(parents.labels, 4))
    repeated = np.tile(parents.images, (4, 1, 1, 1))
    assert not any(np.array_equal(one, other) for one, other in zip(candidates.images, repeated, strict=True))


def test_more_seeds_reuse_what_is_finished_and_other_steps_do_not_collide(
    made: tuple[Recipe, Run, Ceiling], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run, found = made
    assert ceiling(recipe, run, SILENT, seeds=2).scores == found.scores
    before = artifact_hashes(run.uri)
    path = write_recipe(tmp_path, TEXT)
    capsys.readouterr()
    assert cli.main(["ceiling", str(path), "--run", run.uri, "--seeds", "2", "--steps", "2", "--json"]) == OK
    printed = Ceiling.model_validate(json.loads(capsys.readouterr().out))
    assert (printed.steps, printed.scores == found.scores) == (2, False)
    assert artifact_hashes(run.uri).items() >= before.items()


class Stopping(Reporter):
    """Asks the process to stop in the given step of a training."""

    def __init__(self, label: str, step: int) -> None:
        super().__init__(quiet=True)
        self._at = label, step

    def log(self, event: str, **fields: object) -> None:
        """As `Reporter`."""
        if event == "step" and (fields["label"], fields["step"]) == self._at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("label", ["ceiling none (seed 0)", "ceiling inflated (seed 0)", "ceiling none-weak (seed 1)"])
def test_stopped_within_a_training_it_saves_and_resumes_to_the_same_bytes(
    made: tuple[Recipe, Run, Ceiling], tmp_path: Path, label: str
) -> None:
    recipe, whole, found = made
    run = Run(str(tmp_path / "run"))
    signals.install()
    with pytest.raises(Interrupted, match=r"saved at step 2 of 4; run the same command again") as stopped:
        ceiling(recipe, run, Stopping(label, 2), seeds=2)
    assert stopped.value.exit_code == INTERRUPTED
    signals.install()  # as the next process does
    assert ceiling(recipe, run, SILENT, seeds=2).scores == found.scores
    theirs = artifact_hashes(whole.uri)
    assert all(theirs[key] == digest for key, digest in artifact_hashes(run.uri).items())


def test_without_labels_held_out_infonce_judges(tmp_path: Path) -> None:
    digits = (load_digits().images[:160] * 15.9).astype(np.uint8)
    np.savez(tmp_path / "images.npz", image=np.repeat(digits[..., None], 3, axis=3))
    real = f"real: {{kind: npz, path: {tmp_path / 'images.npz'}, validation_fraction: 0.2}}"
    text = TEXT.replace("real: {kind: digits, train_limit_images: 128}", real)
    found = ceiling(load_recipe(write_recipe(tmp_path, text)), Run(str(tmp_path / "run")), SILENT, seeds=2)
    assert (found.judged_by, found.knn_scores, found.knn_gains) == ("infonce", {}, [])
    assert all(score < 0 for values in found.scores.values() for score in values.values())


def test_of_original_photos_the_resized_images_are_used(tmp_path: Path) -> None:
    """Would catch parts that declare themselves photos, of which views are cropped."""
    sizes = np.random.default_rng(0).integers(10, 20, (60, 2))
    for number, (height, width) in enumerate(sizes.tolist()):
        file = tmp_path / f"photos/{'ab'[number % 2]}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), number, np.uint8)).save(file)
    kept = f"real: {{kind: folder, path: {tmp_path / 'photos'}, image_size_px: 8, keep: original, validation_fraction: 0.2}}"
    text = TEXT.replace("real: {kind: digits, train_limit_images: 128}", kept).replace("global_batch: 32", "global_batch: 8")
    run = Run(str(tmp_path / "run"))
    ceiling(load_recipe(write_recipe(tmp_path, text)), run, SILENT, seeds=2)
    parts = [key for key in artifact_hashes(run.uri) if key.endswith("real/manifest.json") and key.startswith("ceiling/")]
    for key in parts:
        committed = run.find(key.removesuffix("/manifest.json"))
        assert committed is not None
        assert committed.content_as(ShardSet).image_size == (8, 8)
        assert "originals" not in committed.content
    assert len(parts) == 2


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (["--seeds", "1"], ("", ""), "--seeds is 1: an interval needs at least 2"),
        (["--seeds", "0"], ("", ""), "invalid --seeds '0'"),
        (["--real", "128"], ("", ""), "--real is 128, and there are 128 real training images"),
        (["--real", "9999"], ("", ""), "give a smaller number"),
        (["--real", "16"], ("", ""), "or raise --real"),
        (["--steps", "-3"], ("", ""), "invalid --steps '-3'"),
        (
            [],
            ("real: {kind: digits,", "quality: null\nreal: {kind: digits, validation_fraction: 0,"),
            "validation split, which has no images",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    made: tuple[Recipe, Run, Ceiling],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    change: tuple[str, str],
    message: str,
) -> None:
    path = write_recipe(tmp_path, TEXT.replace(*change))
    run = str(tmp_path / "run") if change[0] else made[1].uri
    assert cli.main(["ceiling", str(path), "--run", run, *options]) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_run_of_other_images_is_refused(made: tuple[Recipe, Run, Ceiling]) -> None:
    recipe, run, _ = made
    other = recipe.model_copy(update={"real": recipe.real.model_copy(update={"split_seed": 7})})
    with pytest.raises(BadInput, match=r"written by another recipe"):
        ceiling(other, run, SILENT, seeds=2)
