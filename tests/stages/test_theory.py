"""The stage on a small real run: an artifact like any other, and what it refuses; the toy as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adainf import cli
from adainf.errors import BAD_INPUT, BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe
from adainf.stages import toy as toy_stage
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.pretrain import pretrain
from adainf.stages.theory import theory
from adainf.theory import toy
from adainf.theory.record import MIN_SCALES, Theory
from tests.tiny import RECIPE, artifact_hashes, write_recipe

SILENT = Reporter()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    """The recipe, and a run with all that the stage reads and its artifact of arm `none`."""
    folder = tmp_path_factory.mktemp("theory")
    text = RECIPE.replace("train_limit_images: 256", "train_limit_images: 128").replace("images: 120", "images: 48")
    recipe = load_recipe(write_recipe(folder, text))
    run = Run(str(folder / "run"))
    for stage in (ingest, fit, generate):
        stage(recipe, run, SILENT)
    pretrain(recipe, run, SILENT, "none")
    theory(recipe, run, SILENT, "none")
    return recipe, run


def test_measures_every_rung_with_and_without_generated_images(made: tuple[Recipe, Run]) -> None:
    manifest = made[1].find("theory/none")
    assert manifest is not None
    found = manifest.content_as(Theory)
    assert [rung.min_scale for rung in found.rungs] == list(MIN_SCALES)
    assert found.features == 10
    for rung in found.rungs:
        assert {name: graph.images for name, graph in rung.graphs.items()} == {"real": 128, "inflated": 176}
    weak, strong = (found.rungs[place].graphs["real"] for place in (0, -1))
    assert weak.acr < strong.acr
    assert weak.arc == (1 - weak.acr) / (1 - weak.acr_untrained)
    assert {output.key.rpartition(".")[2] for output in manifest.outputs} == {"png"}
    assert all(made[1].read(output) for output in manifest.outputs)


def test_prints_json_alone(made: tuple[Recipe, Run], capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(made[1].uri).parent / "tiny.yaml"
    assert cli.main(["theory", str(recipe), "--run", made[1].uri, "--arm", "none", "--json"]) == 0
    assert Theory.model_validate_json(capsys.readouterr().out).arm == "none"


def test_same_request_gives_the_same_bytes(made: tuple[Recipe, Run]) -> None:
    recipe, run = made
    before = artifact_hashes(run.uri)
    theory(recipe, run, SILENT, "none")  # finished: nothing to do
    run.discard("theory/none")
    theory(recipe, run, SILENT, "none")
    assert artifact_hashes(run.uri) == before


def test_refuses_an_arm_without_an_encoder(made: tuple[Recipe, Run]) -> None:
    with pytest.raises(BadInput, match="run `adainf pretrain RECIPE --arm vanilla`"):
        theory(*made, SILENT, "vanilla")
    with pytest.raises(BadInput, match="not one of the recipe's arms"):
        theory(*made, SILENT, "best")


def test_refuses_images_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", image=np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8))
    text = RECIPE.replace("{kind: digits, train_limit_images: 256}", f"{{kind: npz, path: {tmp_path}/images.npz}}")
    recipe, run = load_recipe(write_recipe(tmp_path, text + "arms: [none]\n")), Run(str(tmp_path / "run"))
    ingest(recipe, run, SILENT)
    pretrain(recipe, run, SILENT, "none")
    with pytest.raises(BadInput, match=r"needs labels of two classes at least.*ingest labelled images"):
        theory(recipe, run, SILENT)
    assert not list(run.store.list("theory/"))


def test_toy_writes_four_plots_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = toy.measure_toy(sizes=(25, 50), radii=(0.4, 0.8, 1.2), seeds=(0,))
    monkeypatch.setattr(toy_stage, "measure_toy", lambda: small)  # the whole takes half a minute
    assert cli.main(["theory", "toy", "-o", str(tmp_path / "out")]) == 0
    assert toy.Toy.model_validate(json.loads((tmp_path / "out/toy.json").read_bytes())) == small
    plots = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".png", ".svg")]
    names = ("bound", "connectivity", "connectivity-by-points", "labelling-error")
    assert {path.name for path in plots} == {f"toy-{name}.png" for name in names}
    assert all(path.stat().st_size <= 60_000 for path in plots)
    assert cli.main(["theory", "toy", "--arm", "none"]) == BAD_INPUT
    assert cli.main(["theory", "recipe.yaml", "-o", "x"]) == BAD_INPUT
