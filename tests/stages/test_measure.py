"""The stage on a small real run: sidecars that resume and add up, the same bytes again, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adainf.errors import BadInput
from adainf.inflation.record import InflationPlan
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.quality.embedding import EmbeddingMap
from adainf.quality.record import Quality
from adainf.quality.sidecar import Sidecar, shards_distance
from adainf.quality.statistics import Moments, frechet_distance
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import decode_image
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import write_split
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.measure import measure
from adainf.stages.plan import plan
from adainf.stages.pretrain import pretrain
from tests.tiny import RECIPE, artifact_hashes, forge, write_recipe

SILENT = Reporter()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """The recipe, and a run with all that the stage reads. Tests must not change it."""
    folder = tmp_path_factory.mktemp("measure")
    recipe = load_recipe(write_recipe(folder))
    run = Run(str(folder / "run"))
    for stage in (ingest, fit, generate):
        stage(recipe, run, SILENT)
    pretrain(recipe, run, SILENT, "none")
    return recipe, folder / "run"


@pytest.fixture
def run(made: tuple[Recipe, Path], tmp_path: Path) -> Run:
    shutil.copytree(made[1], tmp_path / "run")
    return Run(str(tmp_path / "run"))


def tar_keys(run: Run) -> list[str]:
    generated = run.find("generated")
    assert generated is not None
    return generated.content_as(ShardSet).splits["train"].tar_keys


def changed(recipe: Recipe, **quality: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"quality": quality})


def test_every_number_has_its_null_and_every_shard_its_own(made: tuple[Recipe, Path], run: Run) -> None:
    (manifest,) = measure(made[0], run, SILENT)
    found = manifest.content_as(Quality)
    assert (found.images, found.generated_images, found.training_images) == (120, 120, 256)
    assert {space: network.features for space, network in found.spaces.items()} == {"rand": 128, "ssl": 128}
    of_encoder = run.find("pretrain/none/seed-0")
    assert of_encoder is not None
    assert found.spaces["ssl"].sha256 == of_encoder.output("encoder.safetensors").sha256
    assert len(found.scores) == 5 + 2 * 9
    assert found.shards.images == [16] * 7 + [8]
    for column in (*found.shards.fd.values(), *found.shards.coverage.values()):
        assert len(column) == 8
    assert found.scores["coverage_ssl"].value < 0.1 < 0.8 < found.scores["coverage_ssl"].null, "30 steps make no digits"
    for name in ("best", "worst"):
        assert decode_image(run.read(manifest.output(f"{name}.png"))).shape == (16, 64, 3)
    assert not any("time" in key or "host" in key for key in json.dumps(manifest.content))


def test_the_map_names_the_images_that_it_shows(made: tuple[Recipe, Path], run: Run) -> None:
    """By their rows in the splits: the gallery's images are found there."""
    (manifest,) = measure(changed(made[0], images=30), run, SILENT)
    found = EmbeddingMap.from_bytes(run.read(manifest.output("map.npz")), 120, 256)
    assert found.generated_rows.tolist() == list(range(0, 120, 4))
    generated, real = (read_split(ShardFolder.open(f"{run.uri}/{name}"), "train").images for name in ("generated", "real"))
    best, worst = (decode_image(run.read(manifest.output(f"{name}.png"))) for name in ("best", "worst"))
    for sheet, at in ((best, found.realism.argmax()), (worst, found.realism.argmin())):
        assert np.array_equal(sheet[:8, :8], generated[found.generated_rows[at]])
        assert np.array_equal(sheet[8:, :8], real[found.nearest_rows[at]])


def test_killed_it_goes_on_without_the_shards_that_are_done(made: tuple[Recipe, Path], run: Run) -> None:
    """The tars of those are gone, and a sidecar that is damaged is made again: the same bytes as at once."""
    recipe, folder = made
    whole = Run(str(Path(run.uri).parent / "whole"))
    shutil.copytree(folder, whole.uri)
    measure(recipe, whole, SILENT)

    measure(recipe, run, SILENT)
    run.store.delete("quality/manifest.json")
    run.store.delete("quality/train-000007.safetensors")
    run.store.put("quality/train-000006.safetensors", run.store.get("quality/train-000006.safetensors")[:-1])
    tars = {f"generated/{key}": run.store.get(f"generated/{key}") for key in tar_keys(run)[:6]}
    for key in tars:
        run.store.delete(key)
    measure(recipe, run, SILENT)
    for key, data in tars.items():
        run.store.put(key, data)
    assert artifact_hashes(run.uri) == artifact_hashes(whole.uri)


def test_distance_of_some_shards_is_that_of_their_images(made: tuple[Recipe, Path], run: Run) -> None:
    """From the sidecars alone. All images are in the sample here, so their features can be put together otherwise."""
    (manifest,) = measure(made[0], run, SILENT)
    found = manifest.content_as(Quality)
    keys = tar_keys(run)
    sidecars = [Sidecar.from_bytes(run.store.get(f"quality/train-00000{number}.safetensors")) for number in range(8)]
    for space in ("rand", "ssl"):
        assert shards_distance(run, manifest, space, keys) == pytest.approx(found.scores[f"fd_{space}"].value, rel=1e-6)
        assert shards_distance(run, manifest, space, keys[3:4]) == pytest.approx(found.shards.fd[space][3], rel=1e-9)
        three = np.concatenate([sidecar.sample[space] for sidecar in sidecars[2:5]])
        assert len(three) == 48
        again = sum((sidecars[n].moments[space] for n in (3, 4)), start=sidecars[2].moments[space])
        assert frechet_distance(Moments.of(three), again) == pytest.approx(0, abs=1e-6)
        assert shards_distance(run, manifest, space, keys[2:5]) != pytest.approx(found.scores[f"fd_{space}"].value, rel=1e-3)
    with pytest.raises(BadInput, match=r"no train-000009\.safetensors"):
        shards_distance(run, manifest, "rand", ["train-000009.tar"])


def test_the_same_number_of_images_on_every_side(made: tuple[Recipe, Path], run: Run) -> None:
    """Fewer than there are: spread over all shards."""
    measure(changed(made[0], images=30), run, SILENT)
    counts = [
        len(Sidecar.from_bytes(run.store.get(f"quality/train-00000{number}.safetensors")).sample_images) for number in range(8)
    ]
    assert counts == [4, 4, 4, 4, 4, 4, 4, 2]


def test_without_arm_none_the_random_network_is_the_judge(made: tuple[Recipe, Path], run: Run) -> None:
    alone = made[0].model_copy(update={"arms": ("vanilla",)})
    found = measure(alone, run, SILENT)[0].content_as(Quality)
    assert list(found.spaces) == ["rand"]
    assert found.primary_space == "rand"


def test_batch_and_place_of_weights_are_no_part_of_the_identity(made: tuple[Recipe, Path], run: Run) -> None:
    measure(made[0], run, SILENT)
    before = artifact_hashes(run.uri)
    measure(changed(made[0], batch=7), run, SILENT)
    assert artifact_hashes(run.uri) == before
    with pytest.raises(BadInput, match=r"settings\.neighbours: 5 stored, 4 requested"):
        measure(changed(made[0], neighbours=4), run, SILENT)


def test_too_few_images_are_refused_before_anything_is_claimed(made: tuple[Recipe, Path], run: Run) -> None:
    with pytest.raises(BadInput, match=r"quality\.neighbours 120 needs 121 images of each kind, and the generated set has 120"):
        measure(changed(made[0], neighbours=120), run, SILENT)
    with pytest.raises(BadInput, match=r"nothing to measure: .* quality: null"):
        measure(made[0].model_copy(update={"quality": None}), run, SILENT)
    assert run.store.head("quality/request.json") is None


def test_images_of_another_size_are_refused(made: tuple[Recipe, Path], run: Run) -> None:
    forge(Path(run.uri, "generated/manifest.json"), lambda body: body["content"].update(height_px=16))
    with pytest.raises(BadInput, match="generated images are 16 x 8 px, real ones 8 x 8 px"):
        measure(made[0], run, SILENT)
    assert run.store.head("quality/request.json") is None


def test_weights_of_inception_that_are_not_there_are_refused_before_anything_is_claimed(
    made: tuple[Recipe, Path], run: Run
) -> None:
    with pytest.raises(BadInput, match=r"cannot read /no/weights\.pth"):
        measure(changed(made[0], inception={"weights": "/no/weights.pth", "sha256": "0" * 64}), run, SILENT)
    assert run.store.head("quality/request.json") is None


def test_a_recipe_without_a_validation_split_says_that_nothing_is_measured(tmp_path: Path) -> None:
    text = RECIPE.replace("train_limit_images: 256", "train_limit_images: 256, validation_fraction: 0")
    with pytest.raises(BadInput, match=r"real\.validation_fraction is 0; raise it, or set quality: null"):
        load_recipe(write_recipe(tmp_path, text))
    assert not load_recipe(write_recipe(tmp_path, text + "quality: null\n")).measures_quality


def test_copies_of_test_images_are_found_and_the_plan_refuses_them(made: tuple[Recipe, Path], run: Run) -> None:
    """Of the generated images one in three is a test image: they look perfect by every other metric."""
    recipe, generated = made[0], run.find("generated")
    assert generated is not None
    real = ShardFolder.open(f"{run.uri.rstrip('/')}/real")
    test, training = (read_split(real, name).images for name in ("test", "train"))
    images = [*test[:40], *training[:80]]
    split = write_split(run, "generated", "train", 120, 60, lambda rows: [Sample(images[row], None) for row in rows])
    content = generated.content_as(ShardSet).model_copy(update={"splits": {"train": split}})
    run.store.delete(run.manifest_key("generated"))
    run.commit("generated", Manifest(request=generated.request, content=content.model_dump(mode="json")))
    (manifest,) = measure(recipe, run, SILENT)
    found = manifest.content_as(Quality)
    assert found.scores["held_out_copied"].value == pytest.approx(40 / (144 + 359))
    assert any("exact copies" in warning for warning in found.warnings)
    refused = plan(recipe, run, SILENT).content_as(InflationPlan).refused
    assert refused is not None
    assert "exact copies of 7.95 % of the validation and test images" in refused
