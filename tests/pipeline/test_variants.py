"""Change one setting: only what depends on it is computed, the old artifacts stay, and nothing has to be deleted."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.records import Manifest, Output, Request
from adainf.pipeline.variants import conflict, find_place, from_run, reuse, variants
from adainf.recipe import Recipe
from adainf.storage import Store
from adainf.storage.copying import copy_object
from tests.tiny import artifact_hashes

TEXT = """
name: small
cpu_threads: 1
real: {kind: digits, train_limit_images: 64}
generator:
  kind: diffusion
  steps: 3
  batch: 16
  unet: {channels: 8, multipliers: [1], attention_below_px: 1}
  sampler: {steps: 2, batch: 16}
generate: {images: 32, shard_images: 16}
arms: [none, adainf]
pretrain:
  method: {kind: simclr, projector_hidden: 16, projector_out: 8}
  backbone: {name: resnet-small}
  steps: 4
  global_batch: 16
"""


def recipe_of(folder: Path, *settings: str) -> Recipe:
    path = folder / "small.yaml"
    path.write_text(TEXT)
    return load_recipe(path, settings)


def fake(recipe: Recipe, run: Run, until: str = "report") -> None:
    """All artifacts up to `until`, with one object each, as their stages would commit them."""
    made: dict[str, Manifest] = {}
    for name, node in build_graph(recipe).items():
        if name == until:
            return
        inputs = {before: made[before].digest for before in node.inputs} | ({"data": "d"} if name == "real" else {})
        request = Request(stage=node.stage, settings=node.settings, inputs=inputs)
        outputs: list[Output] = []
        if run.claim(name, request) is None and run.manifest_key(name) != f"{name}.json":
            outputs = [run.write(f"{name}/object", name.encode())]
        made[name] = run.commit(name, run.find(name) or Manifest(request=request, outputs=outputs))


def linked(recipe: Recipe, run: Run, *others: Run) -> list[str]:
    return [name for name, _ in reuse(recipe, run, others)]


# ---------------------------------------------------------------------------------------------------------- which artifacts


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("pretrain.steps=5", {"real", "generator", "generated", "evaluate/untrained"}),
        ("generator.steps=4", {"real", "pretrain/none/seed-0", "evaluate/none", "evaluate/untrained"}),
        ("generate.seed=1", {"real", "generator", "pretrain/none/seed-0", "evaluate/none", "evaluate/untrained"}),
        ("quality.neighbours=4", {"real", "generator", "generated", "pretrain/none/seed-0"}),
        ("plan.max_generated_share=0.5", {"quality", "generated", "evaluate/none"}),
        ("evaluate.knn_neighbours=3", {"plan", "pretrain/none/seed-0", "pretrain/adainf/seed-0"}),
        ("pretrain.seeds=[0, 1]", {"plan", "pretrain/none/seed-0", "pretrain/adainf/seed-0"}),
        ("pretrain.monitor.knn_every_steps=2", set()),  # changes no artifact: the same run
        ("arms=[none, vanilla, adainf]", set()),  # an added arm is trained in the same run
        ("cpu_threads=2", set()),
    ],
)
def test_a_variant_keeps_what_does_not_depend_on_the_change(tmp_path: Path, change: str, kept: set[str]) -> None:
    run = Run(str(tmp_path / "run"))
    fake(recipe_of(tmp_path), run)
    before = artifact_hashes(run.uri)
    changed = recipe_of(tmp_path, change)
    place = find_place(changed, run, create=True)
    assert (place.run.uri != run.uri) == bool(kept)
    found = linked(changed, place.run, *place.others)
    assert kept <= set(found)
    for name in found:
        assert place.run.find(name) == run.find(name)
    nodes = build_graph(changed)
    assert not any(before not in found for name in found for before in nodes[name].inputs)
    fake(changed, place.run)
    assert conflict(changed, place.run) is None
    assert linked(changed, place.run, *place.others) == [], "everything is there: a second run reuses nothing more"
    assert {key: value for key, value in artifact_hashes(run.uri).items() if key in before} == before
    again = find_place(changed, run, create=False)  # any later command finds the variant
    assert again.run.uri == place.run.uri


def test_variants_reuse_each_other_and_the_first_run_stays_the_first(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    fake(recipe_of(tmp_path), run)
    for changes in (["pretrain.steps=5"], ["pretrain.steps=5", "evaluate.knn_neighbours=3"]):
        place = find_place(recipe_of(tmp_path, *changes), run, create=True)
        found = linked(recipe_of(tmp_path, *changes), place.run, *place.others)
        fake(recipe_of(tmp_path, *changes), place.run)
    assert "pretrain/adainf/seed-0" in found
    assert len(variants(run)) == 2
    assert find_place(recipe_of(tmp_path), run, create=True).run is run


def test_other_real_images_are_another_experiment(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    fake(recipe_of(tmp_path), run)
    assert find_place(recipe_of(tmp_path, "real.split_seed=1"), run, create=True).run is run  # ingest refuses it, as ever


def test_an_unfinished_artifact_of_other_settings_is_kept_too(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    first, changed = recipe_of(tmp_path), recipe_of(tmp_path, "generator.steps=9")
    fake(first, run, until="generator")
    node = build_graph(first)["generator"]
    real = run.find("real")
    assert real is not None
    run.claim("generator", Request(stage="fit", settings=node.settings, inputs={"real": real.digest}))
    run.write("generator/checkpoints/0001.safetensors", b"hours of work")
    place = find_place(changed, run, create=True)
    assert linked(changed, place.run, *place.others) == ["real"]
    assert run.store.get("generator/checkpoints/0001.safetensors") == b"hours of work"
    assert find_place(first, run, create=True).run is run


def test_a_growing_set_gets_a_variant_where_the_smaller_one_is_used_and_keeps_its_shards(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    more = recipe_of(tmp_path, "generate.images=64")
    fake(recipe_of(tmp_path), run, until="pretrain/none/seed-0")
    assert find_place(more, run, create=True).run is run  # nothing depends on the smaller set yet: it grows in place
    fake(recipe_of(tmp_path), run)
    place = find_place(more, run, create=True)
    assert "generated" in linked(more, place.run, *place.others)
    assert place.run.store.get("generated/object") == b"generated"
    shrunk = find_place(recipe_of(tmp_path, "generate.images=16"), run, create=True)
    assert shrunk.run.uri not in (run.uri, place.run.uri)


def test_fewer_arms_get_their_own_report(tmp_path: Path) -> None:
    run, both = Run(str(tmp_path / "run")), recipe_of(tmp_path)
    fake(both, run)
    inputs = dict.fromkeys(build_graph(both), "digest")
    run.commit("report", Manifest(request=Request(stage="report", settings={"arms": ["none", "adainf"]}, inputs=inputs)))
    fewer = recipe_of(tmp_path, "arms=[none]")
    place = find_place(fewer, run, create=True)
    assert place.run is not run
    assert "evaluate/none" in linked(fewer, place.run, *place.others)
    # The page prints the recipe, so another one gets a page of its own, also if all artifacts are equal.
    shown: Any = {**both.model_dump(mode="json"), "real": {"path": "PATH", "split_seed": 0}}
    request = Request(stage="report", settings={"arms": ["none", "adainf"], "recipe": shown}, inputs=inputs)
    run.store.put("report/manifest.json", Manifest(request=request).to_json())
    assert find_place(both, run, create=True).run is run
    assert find_place(recipe_of(tmp_path, "arms=[none, adainf, vanilla]"), run, create=True).run is run
    assert find_place(recipe_of(tmp_path, "cpu_threads=3"), run, create=True).run is not run


def test_artifacts_of_any_other_run_are_reused_by_digest(tmp_path: Path, s3_env: str) -> None:
    """From a folder to S3 and back, also from a corrupt run."""
    recipe, one, other = recipe_of(tmp_path), Run(str(tmp_path / "one")), Run(f"{s3_env}/other")
    fake(recipe, one)
    assert set(linked(recipe, other, *from_run(one.uri))) == set(build_graph(recipe))
    assert artifact_hashes(other.uri) == artifact_hashes(one.uri)
    back = Run(str(tmp_path / "back"))
    other.store.put("generated/manifest.json", b"corrupt")
    assert "generated" not in linked(recipe, back, *from_run(other.uri))


def test_linked_objects_are_independent(tmp_path: Path) -> None:
    recipe, one, other = recipe_of(tmp_path), Run(str(tmp_path / "one")), Run(str(tmp_path / "other"))
    fake(recipe, one)
    linked(recipe, other, one)
    file, copy = tmp_path / "one/real/object", tmp_path / "other/real/object"
    assert file.stat().st_ino == copy.stat().st_ino
    other.store.put("real/object", b"changed")
    assert file.read_bytes() == b"real"
    shutil.rmtree(tmp_path / "one")
    assert other.store.get("generator/object") == b"generator"


def test_a_reuse_that_was_killed_is_finished_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, one, other = recipe_of(tmp_path), Run(str(tmp_path / "one")), Run(str(tmp_path / "other"))
    fake(recipe, one)
    copies: list[str] = []

    def dies(source: Store, target: Store, key: str) -> None:
        copies.append(key)
        if len(copies) % 2 == 0:
            raise KeyboardInterrupt
        copy_object(source, target, key)

    monkeypatch.setattr("adainf.pipeline.variants.copy_object", dies)
    for _ in range(9):
        with suppress(KeyboardInterrupt):
            linked(recipe, other, one)
        assert not other.find("generator") or other.store.get("generator/object") == b"generator"
    assert artifact_hashes(other.uri) == artifact_hashes(one.uri)


# -------------------------------------------------------------------------------------------------------------- as a user


@pytest.mark.heavy
def test_one_changed_number_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_of(tmp_path)
    recipe, run = str(tmp_path / "small.yaml"), str(tmp_path / "run")
    assert main(["run", recipe, "--run", run, "--until", "measure"]) == OK
    assert not (tmp_path / "run/plan.json").exists()
    assert main(["run", recipe, "--run", run, "--only", "plan", "--only", "pretrain"]) == OK
    assert not (tmp_path / "run/evaluate").exists()
    assert main(["run", recipe, "--run", run]) == OK
    printed = capsys.readouterr().out
    assert "pretrain adainf (seed 0): done, linked to arm none" in printed
    assert "adainf = none: linked, not trained again" in printed
    assert "adainf is linked to none" in printed
    assert "adainf is linked to none" in (tmp_path / "run/report/index.html").read_text()

    before = artifact_hashes(run)
    assert main(["run", recipe, "--run", run, "--set", "pretrain.steps=5"]) == OK
    (variant,) = variants(Run(run))
    after = artifact_hashes(run)
    assert {key: value for key, value in after.items() if not key.startswith("variants/")} == before
    there = artifact_hashes(variant.uri)
    same = {key for key in there if there[key] == before.get(key)}
    assert {"real/manifest.json", "generator/manifest.json", "generated/manifest.json"} <= same
    assert "pretrain/none/seed-0/encoder.safetensors" not in same
    assert "pretrain.steps: 4 stored, 5 requested" in capsys.readouterr().out.replace("settings.", "pretrain.")

    # The same bytes as without any other run, and no reuse of what depends on the number.
    alone = str(tmp_path / "alone")
    assert main(["run", recipe, "--run", alone, "--set", "pretrain.steps=5", "--from", run]) == OK
    assert artifact_hashes(alone) == there
    shutil.rmtree(tmp_path / "alone/pretrain/adainf")
    monkeypatch.setattr("adainf.stages.pretrain._find_twin", lambda *_: None)  # trained, not linked: the same bytes
    assert main(["pretrain", recipe, "--run", alone, "--set", "pretrain.steps=5", "--arm", "adainf"]) == OK
    assert "on 1 process" in capsys.readouterr().out.splitlines()[-1]
    assert artifact_hashes(alone) == there

    capsys.readouterr()
    assert main(["run", recipe, "--run", run, "--until", "verify"]) == BAD_INPUT
    assert main(["run", recipe, "--run", run, "--from", str(tmp_path / "nothing")]) == BAD_INPUT
    errors = capsys.readouterr().err
    assert "the recipe has no stage verify; choose from ingest, fit" in errors
    assert "--from " in errors
    assert "contains no run" in errors
    assert main(["plan", recipe, "--run", run, "--set", "pretrain.steps=5"]) == OK  # a single stage finds the variant
    assert "plan: done already" in capsys.readouterr().out
    assert main(["report", recipe, "--run", run, "--set", "pretrain.steps=5", "--json"]) == OK
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["none", "adainf", "untrained", "chance"]
