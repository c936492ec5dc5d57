"""positives: candidates are functions of (seed, image, number), aligned with their parents, and measured against them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adainf.errors import BadInput
from adainf.generators.diffusion import open_renoise
from adainf.generators.kind import Fitted
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, judging_encoder
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Diffusion, Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.verify import verify
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate, read_fitted
from adainf.stages.ingest import ingest
from adainf.stages.measure import measure
from adainf.stages.plan import plan
from adainf.stages.positives import positives
from adainf.stages.pretrain import pretrain
from tests.tiny import RECIPE, artifact_hashes, write_recipe

SIGMA = "draw: {kind: renoise, sigma: 0.1}"


def recipe(folder: Path, settings: str = f"{SIGMA}, candidates: 2", more: str = "") -> Recipe:
    """256 real images in shards of 100."""
    text = RECIPE.replace("train_limit_images: 256", "train_limit_images: 256, shard_images: 100")
    text = text.replace("images: 120, shard_images: 16", "images: 40, shard_images: 40")
    return load_recipe(write_recipe(folder, f"{text}arms: [none, positives]\npositives: {{{settings}}}\n{more}"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with generated images, the judge and two candidates per image. Tests must not change it."""
    folder = tmp_path_factory.mktemp("prepared")
    wanted, run = recipe(folder), Run(str(folder / "run"))
    for stage in (ingest, fit, generate, positives):
        stage(wanted, run, Reporter())
    pretrain(wanted, run, Reporter(), "none")
    return folder / "run"


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Run:
    """A copy without candidates."""
    shutil.copytree(prepared, tmp_path / "run", ignore=shutil.ignore_patterns("positives"))
    return Run(str(tmp_path / "run"))


def of_positives(uri: str | Path) -> dict[str, str]:
    return {key: value for key, value in artifact_hashes(uri).items() if key.startswith("positives/")}


def test_workers_in_any_order_write_the_bytes_of_one(run: Run, prepared: Path, tmp_path: Path) -> None:
    """Six shards, three of each candidate number: workers share them across the numbers."""
    wanted = recipe(tmp_path)
    assert positives(wanted, run, Reporter(), worker=(3, 4)) is None
    for worker in (1, 0, 2):
        manifest = positives(wanted, run, Reporter(), worker=(worker, 4))
    assert manifest is not None
    assert of_positives(run.uri) == of_positives(prepared)
    verify(f"{run.uri}/positives", Reporter())


def test_shards_are_aligned_with_the_real_ones_and_name_their_parents(prepared: Path) -> None:
    run = Run(str(prepared))
    real, drawn = (ShardFolder.of(run, name, run.find(name)) for name in ("real", "positives"))  # type: ignore[arg-type]
    assert drawn.shards.origin["parents"] == real.digest
    parents = [real.index(shard).keys for shard in real.split("train").shards]
    assert [drawn.index(shard).keys for shard in drawn.split("train").shards] == parents * 2


def test_more_candidates_extend_the_set_and_keep_its_shards(run: Run, prepared: Path, tmp_path: Path) -> None:
    one, two = (recipe(tmp_path / str(number), f"{SIGMA}, candidates: {number}") for number in _folders(tmp_path, 1, 2))
    positives(one, run, Reporter())
    before = of_positives(run.uri)
    with pytest.raises(BadInput, match=r"fewer images than positives\.candidates asks for: run `adainf positives"):
        measure(two, run, Reporter())
    positives(two, run, Reporter())
    after = of_positives(run.uri)
    assert {key for key in before if after[key] != before[key]} == {"positives/manifest.json", "positives/request.json"}
    assert after == of_positives(prepared)
    with pytest.raises(BadInput, match=r"has 2 candidates per image and positives\.candidates is now 1: a set can grow"):
        positives(one, run, Reporter())


def _folders(folder: Path, *names: int) -> tuple[int, ...]:
    for name in names:
        (folder / str(name)).mkdir()
    return names


@pytest.mark.parametrize("settings", ["draw: {kind: renoise, sigma: 0.2}, candidates: 2", f"{SIGMA}, candidates: 2, seed: 1"])
def test_other_candidates_are_refused(prepared: Path, tmp_path: Path, settings: str) -> None:
    with pytest.raises(BadInput, match="was written by another recipe"):
        positives(recipe(tmp_path, settings), Run(str(prepared)), Reporter())


def test_a_candidate_depends_on_its_address_only(prepared: Path, tmp_path: Path) -> None:
    """Not on the batch, nor on the other parents; and on all of seed, image and number."""
    run, wanted = Run(str(prepared)), recipe(tmp_path)
    generator = wanted.generator
    assert isinstance(generator, Diffusion)
    fitted: Fitted = read_fitted(run, run.find("generator"))  # type: ignore[arg-type]
    parents = read_split(ShardFolder.of(run, "real", run.find("real")), "train").images  # type: ignore[arg-type]

    def drawn(rows: range, number: int = 0, seed: int = 0, images: Any = parents) -> np.ndarray[Any, Any]:
        return open_renoise(generator, fitted, images, 0.1, seed, torch.device("cpu"))(number, rows)

    images = drawn(range(16))
    np.testing.assert_array_equal(drawn(range(8, 24))[:8], images[8:])
    np.testing.assert_array_equal(drawn(range(250, 266))[:6], drawn(range(240, 256))[10:], "padding changes nothing")
    others = parents.copy()
    others[8:] = 0
    np.testing.assert_array_equal(drawn(range(16), images=others)[:8], images[:8])
    assert all((one != images).any((1, 2, 3)).all() for one in (drawn(range(16), 1), drawn(range(16), 0, 1)))


def test_neighbours_are_the_nearest_generated_images(run: Run, tmp_path: Path) -> None:
    positives(recipe(tmp_path, "draw: {kind: neighbour}, candidates: 3"), run, Reporter())
    drawn, real, images = (
        read_split(ShardFolder.of(run, name, run.find(name)), "train").images  # type: ignore[arg-type]
        for name in ("positives", "real", "generated")
    )
    weights = run.store.get("pretrain/none/seed-0/encoder.safetensors")
    encoder = Encoder.from_bytes(weights, "encoder", recipe(tmp_path).pretrain.backbone).eval()
    with torch.no_grad():
        features = [encoder(torch.from_numpy(np.array(some))).double() for some in (real, images)]
    nearest = torch.cdist(*features).argsort(1)[:, :3].numpy()
    found = drawn.reshape(3, 256, *drawn.shape[1:])
    for number in range(3):
        assert np.mean((found[number] == images[nearest[:, number]]).all((1, 2, 3))) > 0.99, "ties of the last bit aside"


def test_candidates_are_measured_and_refused_at_chance(run: Run, tmp_path: Path) -> None:
    measure(recipe(tmp_path, f"{SIGMA}, candidates: 2"), _with(run, recipe(tmp_path)), Reporter())
    manifest = run.find("quality/positives")
    assert manifest is not None
    scores = manifest.content["scores"]
    assert scores["retrieval"]["value"] > 0.9
    assert scores["retrieval"]["null"] < 0.05
    assert 0 < scores["distance"]["value"] < scores["distance"]["null"]
    assert 0 < scores["diversity"]["value"] < scores["diversity"]["null"]


def _with(run: Run, wanted: Recipe) -> Run:
    positives(wanted, run, Reporter())
    return run


def test_candidates_that_have_lost_their_parents_are_refused(run: Run, tmp_path: Path) -> None:
    wanted = recipe(tmp_path, "draw: {kind: renoise, sigma: 80}, candidates: 1")
    positives(wanted, run, Reporter())
    with pytest.raises(BadInput, match=r"no more than chance .*lower positives\.draw\.sigma"):
        measure(wanted, run, Reporter())
    assert run.find("quality/positives") is None
    plan(wanted, run, Reporter())
    with pytest.raises(BadInput, match=r"quality/positives/manifest\.json is missing: run `adainf measure"):
        pretrain(wanted, run, Reporter(), "positives")


def test_a_section_of_positives_changes_no_other_request(tmp_path: Path) -> None:
    """So finished runs are reused; and the use of candidates is not part of their request."""
    wanted = recipe(tmp_path)
    without = build_graph(wanted.model_copy(update={"positives": None, "arms": ("none", "none-weak")}))
    with_them = build_graph(wanted.model_copy(update={"arms": ("none", "none-weak", "positives")}))
    assert {name: with_them[name] for name in without} == without
    assert judging_encoder(wanted) in with_them["quality/positives"].inputs
    assert "use" not in with_them["positives"].settings
    assert "positives" not in wanted.model_copy(update={"positives": None}).model_dump(mode="json")


def test_without_such_an_arm_there_is_nothing_to_draw(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no candidates to draw"):
        positives(recipe(tmp_path).model_copy(update={"positives": None, "arms": ("none",)}), run, Reporter())


def test_the_content_is_a_set_of_shards(prepared: Path) -> None:
    manifest = Run(str(prepared)).find("positives")
    assert manifest is not None
    assert manifest.content_as(ShardSet).splits["train"].images == 512


def test_a_control_is_not_linked_to_the_arm_that_it_controls(run: Run, tmp_path: Path) -> None:
    """They have the same images, weights and views, and other companions."""
    arms = ("none", "none-weak", "positives", "random-positives")
    wanted = recipe(tmp_path).model_copy(update={"quality": None, "arms": arms})
    for stage in (positives, plan):
        stage(wanted, run, Reporter())
    weights = set()
    for arm in arms[1:]:
        (manifest,) = pretrain(wanted, run, Reporter(), arm)
        weights.add(manifest.output("encoder.safetensors").sha256)
    assert len(weights) == 3
