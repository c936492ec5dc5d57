"""real.keep: original, from ingest to an encoder: shards hold the users' files, and views are crops of the photos."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image
from sklearn.datasets import load_sample_images

from adainf.augment.originals import OriginalCrops
from adainf.augment.profiles import default_views
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe
from adainf.shards import Source, open_stream
from adainf.shards.format.decode import resized
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.formats import Reading
from adainf.shards.format.png import decode_image
from adainf.shards.format.verify import verify
from adainf.shards.loader.read_all import read_split
from adainf.shards.loader.source import mode_of
from adainf.stages.ingest import ingest
from adainf.stages.mixture import Mixture
from adainf.stages.pretrain import pretrain

PHOTOS: list[np.ndarray] = load_sample_images().images
RECIPE = """
name: photos
real:
  {{kind: folder, path: {path}, image_size_px: 24, keep: original, decode: {decode}, shard_images: 12}}
generator: {{kind: diffusion, steps: 1}}
generate: {{images: 8}}
quality: null
arms: [none]
pretrain:
  backbone: {{name: resnet-small}}
  method: {{kind: simclr, projector_hidden: 16, projector_out: 8}}
  steps: 3
  global_batch: 12
  log_every_steps: 1
"""


def write_photos(folder: Path) -> dict[str, bytes]:
    """Forty photos of 60 to 200 px, JPEG of several kinds, PNG and WebP, some turned by EXIF."""
    found: dict[str, bytes] = {}
    for number in range(40):
        chance = np.random.default_rng(number)
        height, width = (int(side) for side in chance.integers(60, 201, 2))
        image = Image.fromarray(PHOTOS[number % 2][number : number + height, 3 * number : 3 * number + width])
        kind = ("JPEG", "JPEG", "PNG", "WEBP")[number % 4]
        exif = Image.Exif()
        exif[274] = number % 9
        buffer = io.BytesIO()
        image.convert("L" if number % 8 == 1 else "RGB").save(buffer, kind, **({"exif": exif} if kind == "JPEG" else {}))
        name = f"{'ab'[number % 2]}/{number:03d}.{kind.lower()}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(found.setdefault(name, buffer.getvalue()))
    return found


def recipe_of(folder: Path, decode: str = "scaled") -> Recipe:
    path = folder / f"{decode}.yaml"
    path.write_text(RECIPE.format(path=folder / "photos", decode=decode))
    return load_recipe(str(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], ShardFolder]:
    folder = tmp_path_factory.mktemp("photos")
    files = write_photos(folder / "photos")
    run = Run(str(folder / "run"))
    manifest = ingest(recipe_of(folder), run, Reporter())
    return folder, files, ShardFolder.of(run, "real", manifest)


def test_shards_hold_the_files_and_their_digests(made: tuple[Path, dict[str, bytes], ShardFolder]) -> None:
    folder, files, real = made
    held: dict[str, bytes] = {}
    for split in real.shards.splits.values():
        for shard in split.shards:
            index = real.index(shard)
            with tarfile.open(folder / "run" / "real" / shard.tar.key) as tar:
                images = {
                    name: file.read() for name in tar.getnames() if (file := tar.extractfile(name)) and ".cls" not in name
                }
            assert [hashlib.sha256(data).hexdigest() for data in images.values()] == index.image_sha256s
            assert {name.rpartition(".")[2] for name in images} <= {"jpg", "png", "webp"}
            held |= dict(zip(index.image_sha256s, images.values(), strict=True))
    assert sorted(held.values()) == sorted(files.values())
    keys = [key for split in real.shards.splits.values() for shard in split.shards for key in real.index(shard).keys]
    assert len(set(keys)) == len(files)  # also across splits
    verify(real.uri, Reporter())


@pytest.mark.parametrize("decode", ["exact", "scaled"])
def test_readers_of_one_size_get_the_resized_images(tmp_path: Path, decode: str) -> None:
    """The pixels are those of a set that is resized at ingest."""
    write_photos(tmp_path / "photos")
    recipe = recipe_of(tmp_path, decode)
    kept = ingest(recipe, Run(str(tmp_path / "kept")), Reporter())
    resized_at_ingest = recipe.model_copy(update={"real": recipe.real.model_copy(update={"keep": "resized"})})
    reference = ingest(resized_at_ingest, Run(str(tmp_path / "resized")), Reporter())
    sets = (("kept", kept), ("resized", reference))
    ours, theirs = (ShardFolder.of(Run(str(tmp_path / name)), "real", manifest) for name, manifest in sets)
    for split in ("train", "validation", "test"):
        one, other = read_split(ours, split), read_split(theirs, split)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert ours.split("train").channel_means == theirs.split("train").channel_means


def views_of(real: ShardFolder, rank: int, world: int, cache: Path, steps: int, first: int = 0) -> list[np.ndarray]:
    stream = open_stream({"real": Source(real)}, 12, 0, rank=rank, world=world, size_px=24, cached="encoded", cache=cache)
    with stream:
        recipe = load_recipe(str(Path(real.run.uri).parent / "scaled.yaml"))
        stream.crop(OriginalCrops(5, default_views(recipe.pretrain.augmentation), 24))
        stream.load_state_dict(stream.state_at(first))
        return [np.stack(batch.views) for batch, _ in zip(stream, range(steps), strict=False)]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_views_do_not_depend_on_the_processes_and_resume_anywhere(
    made: tuple[Path, dict[str, bytes], ShardFolder], tmp_path: Path, world: int
) -> None:
    _, _, real = made
    expected = views_of(real, 0, 1, tmp_path / "one", 5)
    parts = [views_of(real, rank, world, tmp_path / "shared", 3, first=2) for rank in range(world)]
    for step in range(3):
        np.testing.assert_array_equal(expected[step + 2], np.concatenate([part[step] for part in parts], axis=1))
    assert expected[0].shape == (2, 12, 24, 24, 3)
    assert len({view.tobytes() for step in expected for view in step.reshape(-1, 24 * 24 * 3)}) > 100  # every crop is another


def test_an_encoder_is_pretrained_on_originals(made: tuple[Path, dict[str, bytes], ShardFolder]) -> None:
    folder, _, real = made
    manifest = pretrain(recipe_of(folder), Run(str(folder / "run")), Reporter())[0]
    assert manifest.content["steps"] == 3
    mixture = Mixture.of(real, {}, 1, {}, default_views(recipe_of(folder).pretrain.augmentation))
    with mixture.open(recipe_of(folder).pretrain, 0, Accelerator(cpu=True)) as stream:
        assert stream.originals
        assert mode_of(real, "train", None) == "encoded"
        assert stream.image_size == (24, 24)
        assert next(stream).images.shape == (12, 24, 24, 3)  # without crops, the resized images


def test_what_does_not_go_with_originals_is_refused(made: tuple[Path, dict[str, bytes], ShardFolder], tmp_path: Path) -> None:
    folder, _, real = made
    text = (folder / "scaled.yaml").read_text()
    for change, message in (
        (("image_size_px: 24, ", ""), "image_size_px, the size of the views"),
        (("  steps: 3", "  stream: {window_shards: 2}\n  steps: 3"), "pretrain.stream.window_shards is set"),
        (("  steps: 3", "  stream: {on_device: true}\n  steps: 3"), "pretrain.stream.on_device is set"),
    ):
        assert change[0] in text
        (tmp_path / "bad.yaml").write_text(text.replace(*change))
        with pytest.raises(BadInput, match=message):
            load_recipe(str(tmp_path / "bad.yaml"))
    stream = open_stream({"real": Source(real)}, 12, 0, cached="decoded", cache=tmp_path / "cache")
    with stream, pytest.raises(BadInput, match="cached='encoded'"):
        stream.crop(OriginalCrops(0, (), 24))


def test_requests_of_other_recipes_stay(made: tuple[Path, dict[str, bytes], ShardFolder]) -> None:
    folder, _, real = made
    dumped = recipe_of(folder).real.model_copy(update={"keep": "resized", "decode": "exact"}).model_dump(mode="json")
    assert not {"keep", "decode"} & dumped.keys()
    manifest = json.loads((folder / "run" / "real" / "manifest.json").read_text())
    assert manifest["content"]["originals"]["size_px"] == real.shards.height_px == 24


def test_the_central_square_is_that_of_the_upright_photo(made: tuple[Path, dict[str, bytes], ShardFolder]) -> None:
    _, files, real = made
    images = {image.tobytes() for split in real.shards.splits for image in read_split(real, split).images}
    reading = Reading(exif_transpose=True, square_px=24)
    assert images == {resized(decode_image(data, reading=reading), 24).tobytes() for data in files.values()}
