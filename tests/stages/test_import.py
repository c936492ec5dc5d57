"""Images that exist already in place of generated ones: size, number and channel order are checked, provenance is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.tar import Sample, encode_shard
from adainf.shards.loader.read_all import read_split
from adainf.stages.imports import import_generated
from adainf.stages.ingest import ingest

PROVENANCE = {"generator": "STF", "trained_on": "these images", "used_labels": True, "source": "a disk"}


def coloured(count: int, means: tuple[float, float, float], size: int = 6, seed: int = 0) -> np.ndarray:
    """Noisy images whose channel means are about `means`."""
    noise = np.random.default_rng(seed).normal(0, 30, (count, size, size, 3))
    return np.clip(noise + means, 0, 255).astype(np.uint8)


REAL = coloured(60, (140, 120, 100))
GENERATED = coloured(50, (135, 120, 104), seed=1)


def brought(recipe: Recipe, run: Run) -> Manifest:
    return import_generated(recipe, run, Reporter(), recipe.sources[""])


class Workshop:
    """A run with ingested real images, and recipes that import into it."""

    def __init__(self, folder: Path, real: np.ndarray = REAL, **settings: object) -> None:
        self.folder, self.settings = folder, settings
        np.savez(folder / "real.npz", image=real)
        self.run = Run(str(folder / "run"))
        ingest(self.recipe(folder), self.run, Reporter())

    def recipe(self, path: Path, **options: object) -> Recipe:
        generate = options.pop("generate", {})
        generator = {"kind": "import", "format": "npz", "path": str(path), "provenance": PROVENANCE, **options}
        real = {"kind": "npz", "path": str(self.folder / "real.npz"), **self.settings}
        return Recipe.model_validate({"name": "test", "real": real, "generator": generator, "generate": generate})

    def npz(self, images: np.ndarray) -> Path:
        np.savez(self.folder / "generated.npz", image=images, label=np.arange(len(images)))
        return self.folder / "generated.npz"

    def bring(self, images: np.ndarray, **options: object) -> Manifest:
        return brought(self.recipe(self.npz(images), **options), self.run)

    def read(self) -> np.ndarray:
        manifest = self.run.find("generated")
        assert manifest is not None
        split = read_split(ShardFolder.of(self.run, "generated", manifest), "train")
        assert (split.labels == -1).all()  # labels of generated images are never used
        return split.images

    def objects(self) -> dict[str, bytes]:
        return {info.key: self.run.store.get(info.key) for info in self.run.store.list()}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_all_images_are_taken_and_the_provenance_is_kept(workshop: Workshop) -> None:
    manifest = workshop.bring(GENERATED, generate={"shard_images": 20})
    assert (workshop.read() == GENERATED).all()
    assert manifest.content["origin"] == {"kind": "import", **PROVENANCE, "channel_order_in_file": "RGB"}
    real = workshop.run.find("real")
    assert real is not None
    assert manifest.request.inputs["real"] == real.digest
    assert manifest.request.stage == "generate"
    assert len(manifest.content_as(ShardSet).splits["train"]) == 3
    assert str(workshop.folder) not in manifest.to_json().decode()


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_the_other_forms(workshop: Workshop, form: str) -> None:
    path = workshop.folder / "in"
    path.mkdir()
    for index, image in enumerate(GENERATED):
        if form == "folder":
            Image.fromarray(image).save(path / f"{index:03d}.png")
    if form == "shards":
        (path / "0.tar").write_bytes(encode_shard(0, [Sample(image, 1) for image in GENERATED]))
    brought(workshop.recipe(path, format=form), workshop.run)
    assert (workshop.read() == GENERATED).all()


def test_a_limit_takes_images_from_all_over_the_file(workshop: Workshop) -> None:
    workshop.bring(GENERATED, generate={"images": 5})
    assert (workshop.read() == GENERATED[[0, 10, 20, 30, 40]]).all()


def test_more_than_there_are_is_refused(workshop: Workshop) -> None:
    before = workshop.objects()
    with pytest.raises(BadInput, match=r"generated\.npz holds 50 images, fewer than generate\.images 51; set") as caught:
        workshop.bring(GENERATED, generate={"images": 51})
    assert caught.value.exit_code == 64
    assert workshop.objects() == before


def test_another_size_is_refused_unless_both_are_resized(workshop: Workshop, tmp_path: Path) -> None:
    larger = coloured(20, (135, 120, 104), size=9)
    before = workshop.objects()
    with pytest.raises(BadInput, match=r"image 0 is 9 x 9 px, expected 6 x 6 px.*set real\.image_size_px"):
        workshop.bring(larger)
    assert workshop.objects() == before
    (tmp_path / "b").mkdir()
    resizing = Workshop(tmp_path / "b", image_size_px=4)
    resizing.bring(larger)
    assert resizing.read().shape == (20, 4, 4, 3)


def test_bgr_is_turned_into_rgb(workshop: Workshop) -> None:
    workshop.bring(GENERATED[:, :, :, ::-1], channel_order="BGR")
    assert (workshop.read() == GENERATED).all()


@pytest.mark.parametrize(("declared", "mend"), [("RGB", "BGR"), ("BGR", "RGB")])
def test_an_order_that_contradicts_the_real_images_is_refused(workshop: Workshop, declared: str, mend: str) -> None:
    in_file = GENERATED[:, :, :, ::-1] if declared == "RGB" else GENERATED
    before = workshop.objects()
    with pytest.raises(BadInput, match=rf"generated\.npz: read as {declared}, .*; set generator\.channel_order: {mend}"):
        workshop.bring(in_file, channel_order=declared)
    assert workshop.objects() == before


@pytest.mark.parametrize(
    "images",
    [
        coloured(50, (120, 120, 120)),  # no colour on average: nothing to tell the order by
        np.repeat(coloured(50, (90, 90, 90))[:, :, :, :1], 3, axis=3),  # grey
        coloured(50, (119.5, 120, 120.5)),  # a drift that a generator may have
        coloured(1, (100, 120, 140)),  # one image proves nothing
        np.concatenate([coloured(2, (20, 120, 220)), coloured(2, (210, 120, 20), seed=2)]),  # few, and far apart
    ],
    ids=["neutral", "grey", "drift", "one", "scattered"],
)
def test_what_is_no_proof_passes(workshop: Workshop, images: np.ndarray) -> None:
    workshop.bring(images)
    assert (workshop.read() == images).all()


def test_grey_real_images_take_any_order(tmp_path: Path) -> None:
    grey = Workshop(tmp_path, np.repeat(REAL[:, :, :, :1], 3, axis=3))
    grey.bring(GENERATED)
    assert len(grey.read()) == 50


def test_run_again_is_skipped(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    first = workshop.bring(GENERATED)
    before = workshop.objects()
    gone = workshop.recipe(workshop.folder / "gone.npz")
    assert brought(gone, workshop.run) == first
    assert "generate: done already" in capsys.readouterr().out
    assert workshop.objects() == before


def test_another_declaration_is_refused(workshop: Workshop) -> None:
    workshop.bring(GENERATED)
    before = workshop.objects()
    other = {**PROVENANCE, "used_labels": False}
    with pytest.raises(BadInput, match=r"generated/ was .*used_labels: true stored, false requested"):
        workshop.bring(GENERATED, provenance=other)
    assert workshop.objects() == before


def test_an_interrupted_import_ends_in_the_same_bytes(workshop: Workshop) -> None:
    manifest = workshop.bring(GENERATED, generate={"shard_images": 20})
    whole = workshop.objects()
    shards = manifest.content_as(ShardSet).splits["train"].shards
    keys = [output.key for shard in shards for output in (shard.tar, shard.index)]
    for keep in range(len(keys)):
        for key in ("manifest.json", *keys[keep:]):
            workshop.run.store.delete(f"generated/{key}")
        workshop.bring(GENERATED, generate={"shard_images": 20})
        assert workshop.objects() == whole


def test_a_bad_image_behind_the_first_ones_leaves_nothing_behind(workshop: Workshop) -> None:
    folder = workshop.folder / "in"
    folder.mkdir()
    for index in range(3000):  # more than the channel-order check looks at
        Image.fromarray(GENERATED[index % 50]).save(folder / f"{index:04d}.png", compress_level=0)
    (folder / "2999.png").write_bytes(b"\x89PNG")
    before = workshop.objects()
    wanted = workshop.recipe(folder, format="folder", generate={"shard_images": 1000})
    with pytest.raises(BadInput, match=r"2999\.png: cannot decode the image"):
        brought(wanted, workshop.run)
    assert workshop.objects() == before


def test_without_real_images_there_is_nothing_to_compare_with(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run `adainf ingest RECIPE` on this run first"):
        brought(workshop.recipe(workshop.npz(GENERATED)), Run(str(tmp_path / "empty")))
