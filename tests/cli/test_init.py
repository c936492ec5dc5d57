"""`adainf init`: whatever the data look like, a recipe that is valid and fits them, or one sentence."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.augment.profiles import default_views
from adainf.cli import main
from adainf.cli.starter import METHODS
from adainf.errors import BAD_INPUT, OK
from adainf.generators import generator_kind
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Diffusion, Recipe
from adainf.shards.format.manifest import ShardSet
from adainf.stages.ingest import ingest
from adainf.stages.measure import compared_images
from adainf.stages.mixture import check_batch
from tests.tiny import adainf

Make = Callable[[Path], str]


def png(seed: int, height: int = 12, width: int = 12, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, "PNG")
    return data.getvalue()


def write(folder: Path, names: list[str], **of_png: int | str) -> str:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number, **of_png))  # type: ignore[arg-type]
    return str(folder)


def numbered(count: int, pattern: str = "{}.png") -> list[str]:
    return [pattern.format(number, number % 3) for number in range(count)]


def mixed_sizes(at: Path) -> str:
    for number in range(40):
        (at / f"{number}.png").write_bytes(png(number, 9 + number, 50))
    return str(at)


def tars(at: Path) -> str:
    with tarfile.open(at / "a.tar", "w") as tar:
        for number in range(40):
            for suffix, data in (("png", png(number)), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(at)


def npz(at: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 3), dtype=np.uint8)
    np.savez(at / "images.npz", image=images, label=np.arange(60) % 10)
    return str(at / "images.npz")


SOURCES: dict[str, Make] = {
    "classes": lambda at: write(at, numbered(60, "{1}/{0}.png")),
    "no labels": lambda at: write(at, numbered(20)),
    "one class": lambda at: write(at, numbered(40, "cat/{}.png")),
    "splits": lambda at: write(at, [*numbered(40, "train/{1}/{0}.png"), *numbered(9, "val/{1}/{0}.png")]),
    "nested": lambda at: write(at / "x", numbered(40, "x/images/{1}/{0}.png")),
    "mixed sizes": mixed_sizes,
    "photos": lambda at: write(at, numbered(30), height=300, width=200),
    "one pixel": lambda at: write(at, numbered(30), height=1, width=1),
    "grey": lambda at: write(at, numbered(30), mode="L"),
    "sixteen bits": lambda at: write(at, numbered(30), mode="I;16"),
    "tars": tars,
    "one tar": lambda at: f"{tars(at)}/a.tar",
    "npz": npz,
    "spaces and colons": lambda at: write(at / "a: b #c", numbered(30)),
    "quotes and braces": lambda at: write(at / 'it\'s "{x}"\\', numbered(30)),
    "unicode": lambda at: write(at / "фото 照片", numbered(30)),
    "a word of YAML": lambda at: write(at / "null", numbered(30)),
    "leading dash": lambda at: write(at / "-rf", numbered(30)),
}


def check_fits(recipe: Recipe, folder: Path) -> ShardSet:
    """The recipe ingests its images, and no later stage refuses them."""
    real = ingest(recipe, Run(str(folder)), Reporter(quiet=True)).content_as(ShardSet)
    train = real.splits["train"].images
    assert isinstance(recipe.generator, Diffusion)
    assert recipe.generator.batch <= train
    generator_kind(recipe.generator).check(recipe.generator, "generator", train, *real.image_size)
    check_batch(recipe, "none", [train], [1.0])
    if recipe.measures_quality:
        compared_images(recipe, real)
    assert len(default_views(recipe.pretrain.augmentation)) == 2
    return real


@pytest.mark.parametrize("kind", SOURCES)
def test_the_recipe_fits_its_images(kind: str, tmp_path: Path) -> None:
    uri, recipe = SOURCES[kind](tmp_path), tmp_path / "recipe.yaml"
    assert main(["init", "-o", str(recipe), "--cpu", "--", uri]) == OK
    loaded = load_recipe(recipe)
    real = check_fits(loaded, tmp_path / "run")
    assert {"none", "none-weak", "vanilla", "adainf"} == set(loaded.arms)
    assert (real.splits["test"].images > 0) == (kind in ("classes", "splits", "nested", "tars", "one tar", "npz"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("device", ["--cpu", "--gpu"])
def test_every_method_gets_its_views_and_optimiser(method: str, device: str, tmp_path: Path) -> None:
    uri, recipe = SOURCES["classes"](tmp_path), tmp_path / "recipe.yaml"
    assert main(["init", uri, "-o", str(recipe), "--method", method, device]) == OK
    pretrain = load_recipe(recipe).pretrain
    assert pretrain.method.kind == method
    assert pretrain.augmentation.family == ("asymmetric" if method in ("byol", "barlow", "vicreg") else "symmetric")
    assert pretrain.optimizer.kind == "adamw", "for a small batch"
    assert (pretrain.backbone.name == "resnet18") == (device == "--gpu")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda at: write(at, numbered(3)), "contains 3 training images, and contrastive learning needs at least 20"),
        (lambda at: str(at), "contains no images"),
        (lambda at: str(at / "nothing"), "no such folder; set FOLDER"),
        (lambda at: write(at / "a", ["one.png"]) + "/one.png", "is a file"),
        (lambda at: write(at, [*numbered(20, "dogs/{}.png"), *numbered(20, "test/{}.png")]), "which may be splits or classes"),
        (lambda at: "", "the path is empty"),
        (lambda at: "ftp://host/images", "ftp"),
    ],
)
def test_what_no_recipe_fits_is_one_sentence(
    make: Make, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "-o", str(tmp_path / "recipe.yaml"), "--", make(tmp_path)]) == BAD_INPUT
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "recipe.yaml").exists()


def test_another_recipe_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, recipe = SOURCES["classes"](tmp_path), tmp_path / "recipe.yaml"
    for _ in range(2):  # the same recipe again is no error
        assert main(["init", uri, "-o", str(recipe)]) == OK
    recipe.write_text("mine")
    assert main(["init", uri, "-o", str(recipe)]) == BAD_INPUT
    assert "exists and is another recipe" in capsys.readouterr().err
    assert recipe.read_text() == "mine"
    assert main(["init", uri, "-o", str(tmp_path)]) == BAD_INPUT


def test_characters_are_not_mirrored(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for names, flips in ((numbered(30, "{1}/{0}.png"), False), (numbered(30, "class-{1}/{0}.png"), True)):
        assert main(["init", write(tmp_path / f"{flips}", names), "-o", str(recipe)]) == OK
        loaded = load_recipe(recipe)
        assert isinstance(loaded.generator, Diffusion)
        assert (loaded.pretrain.augmentation.flip_probability > 0, loaded.generator.horizontal_flip) == (flips, flips)
        recipe.unlink()


def test_init_imports_no_torch_and_needs_the_headers_only(tmp_path: Path) -> None:
    """Would catch a decode of every image, and an import that takes seconds; timings do not gate."""
    uri = write(tmp_path, numbered(40))
    code = (
        "import sys; from adainf.cli import main; from adainf.sources.folder import FolderImages;"
        "FolderImages.__getitem__ = None;"
        f"code = main(['init', {uri!r}, '-o', '-']); print([m for m in ('torch', 'boto3', 'sklearn') if m in sys.modules]);"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == OK, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.process
def test_a_recipe_in_a_pipe(tmp_path: Path) -> None:
    done = adainf("init", write(tmp_path, numbered(30)), "-o", "-")
    (tmp_path / "piped.yaml").write_text(done.stdout)
    assert load_recipe(tmp_path / "piped.yaml").real.image_size_px == 12
