"""Exact copies: kept in one split at ingest, and refused where imported images are copies of held-out ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.shards.format.manifest import ShardSet
from adainf.stages.ingest import ingest
from tests.stages.test_import import GENERATED, Workshop
from tests.stages.test_ingest import IMAGES, objects, recipe, splits, written


def pixels_of(run: Run) -> dict[str, set[bytes]]:
    return {name: {image.tobytes() for image in split.images} for name, split in splits(run).items()}


def test_copies_are_kept_in_one_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=np.concatenate([IMAGES, IMAGES]), label=np.arange(80))
    real = {"kind": "npz", "path": str(tmp_path / "data.npz"), "validation_fraction": 0.2}
    summary = {}
    for duplicates in ("keep_together", "allow"):
        run = Run(str(tmp_path / duplicates))
        manifest = ingest(recipe(**real, duplicates=duplicates), run, Reporter())
        found = pixels_of(run)
        shared = found["train"] & found["test"] | found["train"] & found["validation"] | found["validation"] & found["test"]
        assert bool(shared) == (duplicates == "allow")
        assert sum(len(split.images) for split in splits(run).values()) == 80
        summary[duplicates] = manifest.content_as(ShardSet).summary
    assert "exact copies across splits" in str(summary["keep_together"])
    assert "exact copies" not in str(summary["allow"])


def test_without_copies_the_splits_are_those_of_older_versions(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=IMAGES)
    real = {"kind": "npz", "path": str(tmp_path / "data.npz")}
    runs = [Run(str(tmp_path / name)) for name in ("keep_together", "allow")]
    for run in runs:
        ingest(recipe(**real, duplicates=Path(run.store.uri).name), run, Reporter())
    assert pixels_of(runs[0]) == pixels_of(runs[1])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_imported_copies_of_held_out_images_are_refused(tmp_path: Path, split: str) -> None:
    workshop = Workshop(tmp_path)
    copies = splits(workshop.run)[split].images[:2]
    before = workshop.objects()
    with pytest.raises(BadInput, match=rf"2 of 52 images are exact copies .* image 3, in the {split} split"):
        workshop.bring(np.concatenate([GENERATED[:3], copies, GENERATED[3:]]))
    assert workshop.objects() == before
    workshop.bring(np.concatenate([GENERATED, splits(workshop.run)["train"].images[:1]]))  # quality measures these


def test_an_interrupted_ingest_of_copies_and_turned_images_ends_in_the_same_bytes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "data").mkdir()
    for number in range(30):
        Image.fromarray(IMAGES[number % 20]).save(tmp_path / "data" / f"{number}.png", exif=exif)
    wanted = recipe(kind="folder", path=str(tmp_path / "data"), shard_images=4)
    complete = Run(str(tmp_path / "complete"))
    manifest = ingest(wanted, complete, Reporter())
    assert {image.tobytes() for split in splits(complete).values() for image in split.images} == {
        np.ascontiguousarray(image[::-1, ::-1]).tobytes() for image in IMAGES[:20]
    }
    expected = objects(complete)
    for kept in (1, 4, len(expected) - 1):
        run = Run(str(tmp_path / f"kept-{kept}"))
        keys = ["real/request.json", *(f"real/{one.tar.key}" for one in written(manifest))][:kept]
        for key in keys:
            run.store.put(key, expected[key])
        ingest(wanted, run, Reporter())
        assert objects(run) == expected


def test_a_run_of_an_older_version_is_reused(tmp_path: Path) -> None:
    """Its request lacks the new settings, its manifest the summary, and its images were not turned."""
    (tmp_path / "data").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in range(30):
        Image.fromarray(IMAGES[number]).save(tmp_path / "data" / f"{number}.png", exif=exif)
    old = Run(str(tmp_path / "run"))
    made = ingest(recipe(kind="folder", path=str(tmp_path / "data")), old, Reporter())
    assert not {"splits", "exif_transpose", "sixteen_bit", "duplicates"} & made.request.settings.keys()
    content = {name: value for name, value in made.content.items() if name != "summary"}
    inputs = {"data": "0" * 64}
    manifest = made.model_copy(update={"content": content, "request": made.request.model_copy(update={"inputs": inputs})})
    old.store.put("real/manifest.json", manifest.to_json())
    before = objects(old)
    assert ingest(recipe(kind="folder", path=str(tmp_path / "data")), old, Reporter()) == manifest
    assert objects(old) == before


def test_labels_in_train_only_are_warned_of_at_ingest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        folder = tmp_path / "data" / ("train/cat" if number < 6 else "train/dog" if number < 10 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")
    ingest(recipe(kind="folder", path=str(tmp_path / "data")), Run(str(tmp_path / "run")), Reporter())
    assert "ingest: warning: the training images have labels and the test images have none" in capsys.readouterr().out
