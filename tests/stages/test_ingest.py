"""Ingest: the same recipe and data give the same bytes, however often it is interrupted; bad data leave nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import Recipe
from adainf.shards.format.decode import resized
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard, ShardSet
from adainf.shards.loader.read_all import Labelled, read_split
from adainf.stages.ingest import carve, ingest

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(40) % 3


def recipe(**real: object) -> Recipe:
    generator = {"kind": "diffusion", "steps": 1}
    data = {"name": "test", "real": real, "generator": generator, "generate": {"images": 1}, "arms": ["none"]}
    return Recipe.model_validate(data)


def digits(**settings: object) -> Recipe:
    return recipe(kind="digits", shard_images=300, **settings)


def objects(run: Run) -> dict[str, bytes]:
    return {info.key: run.store.get(info.key) for info in run.store.list()}


def splits(run: Run) -> dict[str, Labelled]:
    manifest = run.find("real")
    assert manifest is not None
    folder = ShardFolder.of(run, "real", manifest)
    return {name: read_split(folder, name) for name in folder.shards.splits}


def written(manifest: Manifest) -> list[Shard]:
    return [shard for split in manifest.content_as(ShardSet).splits.values() for shard in split.shards]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", image=IMAGES, label=LABELS)
    return tmp_path / "data.npz"


# ------------------------------------------------------------------------------------------------------- what is written


def test_the_digits(run: Run) -> None:
    manifest = ingest(digits(), run, Reporter())
    shards = ShardSet.model_validate(manifest.content)
    assert {name: split.images for name, split in shards.splits.items()} == {"train": 1294, "validation": 144, "test": 359}
    assert (shards.height_px, shards.width_px, shards.channels, shards.dtype) == (8, 8, "RGB", "uint8")
    assert shards.classes == list("0123456789")
    assert all(split.labelled for split in shards.splits.values())
    assert [len(split) for split in shards.splits.values()] == [5, 1, 2]
    for shard in written(manifest):
        ShardFolder.of(run, "real", manifest).index(shard)
    assert manifest == run.find("real")


def test_every_image_is_in_one_split_and_each_keeps_the_order_of_the_source(run: Run, npz: Path) -> None:
    ingest(recipe(kind="npz", path=str(npz), shard_images=7, test_fraction=0.25, validation_fraction=0.2), run, Reporter())
    read = splits(run)
    assert {name: len(split.images) for name, split in read.items()} == {"train": 24, "validation": 6, "test": 10}
    place = {image.tobytes(): index for index, image in enumerate(IMAGES)}
    seen = []
    for split in read.values():
        indices = [place[image.tobytes()] for image in split.images]
        assert indices == sorted(indices)
        assert split.labels.tolist() == LABELS[indices].tolist()
        seen += indices
    assert sorted(seen) == list(range(40))


def test_the_split_is_fixed_for_all_time() -> None:
    """Numbers of another day would be of other splits: this permutation must never change."""
    train, validation, test = carve(12, test_fraction=0.25, validation_fraction=0.2, train_limit=4, seed=3)
    assert (train.tolist(), validation.tolist(), test.tolist()) == ([5, 6, 9, 11], [7, 10], [0, 1, 2])


def test_a_limit_on_the_training_images_takes_nothing_from_the_other_splits() -> None:
    whole = carve(100, 0.2, 0.1, None, 0)
    half = carve(100, 0.2, 0.1, 36, 0)
    assert len(half[0]) == 36
    assert set(half[0]) < set(whole[0])
    assert [part.tolist() for part in half[1:]] == [part.tolist() for part in whole[1:]]
    assert carve(100, 0.2, 0.1, None, 1)[0].tolist() != whole[0].tolist()


def test_an_own_test_split_is_kept_and_fractions_of_zero_give_empty_splits(run: Run, tmp_path: Path) -> None:
    for index, image in enumerate(IMAGES[:10]):
        file = tmp_path / "data" / ("train" if index < 7 else "test") / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    ingest(recipe(kind="folder", path=str(tmp_path / "data"), validation_fraction=0), run, Reporter())
    read = splits(run)
    assert (read["test"].images == IMAGES[[8, 7, 9]]).all()
    assert len(read["validation"].images) == 0
    assert len(read["train"].images) == 7


def test_a_source_without_labels(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", image=IMAGES)
    manifest = ingest(recipe(kind="npz", path=str(tmp_path / "bare.npz")), run, Reporter())
    shards = ShardSet.model_validate(manifest.content)
    assert shards.classes == []
    assert not any(split.labelled for split in shards.splits.values())


def test_images_of_many_sizes_are_cropped_and_resized(run: Run, tmp_path: Path) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = (200, 100, 50)  # the central square
    for index, part in enumerate((image, image.transpose(1, 0, 2), image[:, 10:30], image[5:15, 15:25])):
        Image.fromarray(part).save(tmp_path / f"{index}.png")
    real = {"kind": "folder", "path": str(tmp_path), "image_size_px": 10, "validation_fraction": 0, "test_fraction": 0}
    ingest(recipe(**real), run, Reporter())
    images = splits(run)["train"].images
    assert images.shape == (4, 10, 10, 3)
    assert (images == (200, 100, 50)).all()


def test_resizing_averages_when_it_shrinks() -> None:
    board = np.zeros((8, 8, 3), np.uint8)
    board[::2] = 255
    assert np.abs(resized(board, 2).astype(int) - 127.5).max() < 20  # nearest pixels would be 0 or 255


def test_pure_red_stays_red(run: Run, tmp_path: Path) -> None:
    red = np.zeros((9, 9, 3), np.uint8)
    red[:, :, 0] = 255
    for index in range(4):
        Image.fromarray(red).save(tmp_path / f"{index}.png")
    for size, name in ((None, "a"), (5, "b")):
        there = Run(str(tmp_path / name))
        real = {"kind": "folder", "path": str(tmp_path), "image_size_px": size, "test_fraction": 0.25, "duplicates": "allow"}
        manifest = ingest(recipe(**real, validation_fraction=0), there, Reporter())
        assert ShardSet.model_validate(manifest.content).splits["train"].channel_means == (255, 0, 0)


# ----------------------------------------------------------------------------------------- again, interrupted, elsewhere


def test_run_again_is_skipped_even_without_the_data(run: Run, npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = recipe(kind="npz", path=str(npz))
    first = ingest(wanted, run, Reporter())
    before = objects(run)
    npz.unlink()
    assert ingest(wanted, run, Reporter()) == first
    assert "ingest: done already (same recipe and inputs); skipped" in capsys.readouterr().out
    assert objects(run) == before


def test_interrupted_anywhere_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Objects appear in one order: whatever is missing at a kill is a tail of it."""
    whole, wanted = Run(str(tmp_path / "whole")), digits(validation_fraction=0.3)
    manifest = ingest(wanted, whole, Reporter())
    keys = [output.key for shard in written(manifest) for output in (shard.tar, shard.index)]
    order = [f"real/{key}" for key in ("request.json", *keys, "manifest.json")]
    expected = objects(whole)
    assert sorted(order) == sorted(expected)
    for kept in range(0, len(order), 3):
        run = Run(str(tmp_path / f"kept-{kept}"))
        for key in order[:kept]:
            run.store.put(key, expected[key])
        ingest(wanted, run, Reporter())
        assert objects(run) == expected


def test_the_same_data_elsewhere_are_the_same_artifact(tmp_path: Path, npz: Path) -> None:
    copy = tmp_path / "elsewhere.npz"
    shutil.copy(npz, copy)
    a, b = (ingest(recipe(kind="npz", path=str(path)), Run(str(tmp_path / path.stem)), Reporter()) for path in (npz, copy))
    assert a.digest == b.digest


def test_other_data_are_not_mixed_into_an_interrupted_ingest(run: Run, npz: Path) -> None:
    wanted = recipe(kind="npz", path=str(npz), shard_images=5)
    ingest(wanted, run, Reporter())
    run.store.delete("real/manifest.json")
    np.savez(npz, image=255 - IMAGES, label=LABELS)
    before = objects(run)
    with pytest.raises(BadInput, match=r"real/ was .*inputs\.data.*or delete it"):
        ingest(wanted, run, Reporter())
    assert objects(run) == before


def test_another_recipe_is_refused(run: Run) -> None:
    ingest(digits(), run, Reporter())
    before = objects(run)
    with pytest.raises(BadInput, match=r"settings\.split_seed: 0 stored, 5 requested"):
        ingest(digits(split_seed=5), run, Reporter())
    assert objects(run) == before


# ------------------------------------------------------------------------------------------------------------- bad data


def test_data_that_cannot_be_opened_leave_nothing_behind(run: Run, tmp_path: Path) -> None:
    run.store.put("plan.json", b"{}")
    with pytest.raises(BadInput, match="no such file; set") as caught:
        ingest(recipe(kind="npz", path=str(tmp_path / "gone.npz")), run, Reporter())
    assert caught.value.exit_code == 64
    assert list(objects(run)) == ["plan.json"]


def spoil_by_truncation(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:60])
    return f"{file}: cannot decode the image"


def spoil_by_size(file: Path) -> str:
    Image.fromarray(IMAGES[0][:5]).save(file)
    return f"{file} is 5 x 6 px, expected 6 x 6 px: all images must have one size; set real.image_size_px"


@pytest.mark.parametrize("spoil", [spoil_by_truncation, spoil_by_size])
def test_an_image_that_turns_out_bad_names_its_file_and_can_be_mended(
    run: Run, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(data / f"{index:02d}.png")
    run.store.put("plan.json", b"{}")
    said = spoil(data / "30.png")
    wanted = recipe(kind="folder", path=str(data), shard_images=4)
    with pytest.raises(BadInput) as caught:
        ingest(wanted, run, Reporter())
    assert said in str(caught.value)
    assert list(objects(run)) == ["plan.json"]
    (data / "30.png").unlink()
    ingest(wanted, run, Reporter())
    assert sum(len(split.images) for split in splits(run).values()) == 39


def test_all_damaged_images_are_named_at_once(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a run for each of them, an image told twice, and a search that ends at one of another size."""
    data = tmp_path / "data"
    data.mkdir()
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(data / f"{index:02d}.png")
    Image.fromarray(IMAGES[0][:3]).save(data / "20.png")
    bad = {f"{data}/{index}.png" for index in (10, 15, 25, 39)}
    for file in bad:
        Path(file).write_bytes(b"broken")
    with pytest.raises(BadInput, match="replace or remove this file and the 3 listed above") as caught:
        ingest(recipe(kind="folder", path=str(data), shard_images=4), run, Reporter())
    told = capsys.readouterr().out.splitlines()
    assert {line.partition(": ")[0] for line in [*told, str(caught.value)]} == bad
    assert len(told) == 3
    assert list(objects(run)) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"test_fraction": 0.01}, "40 images are too few for a test split of 0.01; bring more images, raise real.test_frac"),
        ({"validation_fraction": 0.001}, "too few for a validation split of 0.001"),
        ({"test_fraction": 0.99, "validation_fraction": 0}, "none of 40 images is left for training after 40 for test"),
        ({"train_limit_images": 30}, "real.train_limit_images to at most 29"),
    ],
)
def test_too_few_images_for_the_splits(run: Run, npz: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        ingest(recipe(kind="npz", path=str(npz), **settings), run, Reporter())
    assert said in str(caught.value)
    assert not objects(run)
