"""Exact copies: kept in one split at ingest, and refused where imported images are copies of held-out ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.shards.format.manifest import ShardSet
from adainf.stages.ingest import ingest
from tests.stages.test_import import GENERATED, Workshop
from tests.stages.test_ingest import IMAGES, recipe, splits


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
