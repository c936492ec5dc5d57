"""`adainf ls | gc | compare`: sizes, what may be deleted, and differences of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK
from adainf.evaluation.scores import ArmScores, Measure, SeedScores
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, evaluated
from adainf.pipeline.records import Manifest
from adainf.pipeline.variants import find_place, reuse, variants
from tests.pipeline.test_variants import fake, recipe_of
from tests.tiny import artifact_hashes


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == OK
    return json.loads(capsys.readouterr().out)


def score(run: Run, arm: str, hits: list[list[int]]) -> None:
    """Replace the scores of an arm: hits by seed."""
    manifest = run.find(evaluated(arm))
    assert manifest is not None
    measures = {
        str(seed): SeedScores(measures=[Measure.of("linear", np.array(of_seed, bool), seed, {"solver": "lbfgs"})])
        for seed, of_seed in enumerate(hits)
    }
    scores = ArmScores(arm=arm, test_images=len(hits[0]), chance=0.1, seeds=measures, infonce={})
    changed = manifest.model_copy(update={"content": scores.model_dump(mode="json")})
    run.store.put(run.manifest_key(evaluated(arm)), changed.to_json())


def runs(folder: Path) -> tuple[Run, Run]:
    """A run and its variant."""
    run, changed = Run(str(folder / "runs/one")), recipe_of(folder, "pretrain.steps=5")
    fake(recipe_of(folder), run)
    place = find_place(changed, run, create=True)
    list(reuse(changed, place.run, place.others))
    fake(changed, place.run)
    return run, place.run


def test_runs_are_listed_with_their_variants_and_what_they_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, variant = runs(tmp_path)
    fake(recipe_of(tmp_path), Run(str(tmp_path / "runs/deep er/[two]")), until="quality")
    listed = printed(capsys, "ls", str(tmp_path / "runs"))
    assert [one["run"] for one in listed] == [str(tmp_path / "runs/deep er/[two]"), run.uri, variant.uri]
    assert set(listed[1]["finished"]) == set(build_graph(recipe_of(tmp_path)))
    assert listed[1]["unfinished"] == []
    for one, where in ((listed[1], run), (listed[2], variant)):
        objects = [info for info in where.store.list() if not info.key.startswith("variants/")]
        assert one["size_bytes"] == sum(info.size_bytes for info in objects)
        assert one["shared_bytes"] == len("realgeneratorgenerated")
    assert listed[0]["shared_bytes"] == 0
    assert main(["ls", str(tmp_path / "runs")]) == OK
    table = capsys.readouterr().out
    assert "[two]" in table
    assert "none, adainf" in table
    assert main(["ls", str(tmp_path / "nothing")]) == BAD_INPUT
    assert main(["ls", str(tmp_path / "small.yaml")]) == BAD_INPUT


def test_gc_lists_first_and_deletes_only_what_no_manifest_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, variant = runs(tmp_path)
    manifest = run.find("generated")
    assert manifest is not None
    splits: Any = {"splits": {"train": {"tar_keys": ["aaaa/train-000000.tar"]}}}
    run.store.put("generated/manifest.json", Manifest(request=manifest.request, content=splits).to_json())
    before = artifact_hashes(run.uri)
    for key in ("generated/aaaa/train-000000.tar", "generated/aaaa/train-000000.index.json"):
        run.store.put(key, b"needed")
    run.store.put("generated/bbbb/train-000000.tar", b"of killed workers")
    run.store.put("generator/checkpoints/0003.safetensors", b"late upload")
    run.store.put("pretrain/vanilla/seed-0/request.json", run.store.get("generator/request.json"))
    run.store.put("pretrain/vanilla/seed-0/checkpoints/0001.safetensors", b"work")
    found = printed(capsys, "gc", run.uri)
    assert {(one["artifact"], one["objects"]) for one in found["garbage"]} == {("generated", 1), ("generator", 1)}
    assert found["freed_bytes"] == len(b"of killed workers" + b"late upload")
    assert run.store.head("generated/bbbb/train-000000.tar")
    assert main(["gc", run.uri, "--delete"]) == OK
    assert printed(capsys, "gc", run.uri)["garbage"] == []
    assert run.store.get("generated/aaaa/train-000000.tar") == b"needed"
    assert run.store.head("pretrain/vanilla/seed-0/checkpoints/0001.safetensors"), "unfinished work is kept"
    assert main(["gc", run.uri, "--delete", "--unfinished"]) == OK
    assert not list(run.store.list("pretrain/vanilla/"))
    assert before.items() <= artifact_hashes(run.uri).items()

    assert printed(capsys, "gc", variant.uri, "--all", "--delete")["freed_bytes"] < 1_000_000
    assert not list(variant.store.list())
    assert variants(run) == []
    gone = before.keys() - artifact_hashes(run.uri).keys()
    assert gone == {key for key in before if key.startswith("variants/") and "/.tmp/" not in key}
    assert run.store.get("real/object") == b"real", "linked objects outlive the variant"
    assert main(["gc", str(tmp_path / "runs"), "--all", "--delete"]) == BAD_INPUT
    assert "give " in capsys.readouterr().err
    assert run.find("plan")


def test_runs_are_compared_paired_by_image_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, variant = runs(tmp_path)
    for where, none, adainf in ((run, 50, 50), (variant, 50, 90)):
        score(where, "none", [[1] * none + [0] * (100 - none)] * 2)
        score(where, "adainf", [[1] * adainf + [0] * (100 - adainf)] * 2)
        score(where, "untrained", [[0] * 100] * 2)
    found = printed(capsys, "compare", run.uri)  # of one run: against its variants
    assert found["settings"] == {"pretrain.steps": [4, 5]}
    rows = {(one["arm"], one["run"] == run.uri): one for one in found["rows"]}
    assert rows["adainf", True]["difference"] is None
    assert rows["adainf", False]["difference"] == pytest.approx(0.4)
    assert rows["adainf", False]["paired"]
    assert 0.05 < rows["adainf", False]["margin"] < 0.15
    assert rows["none", False]["margin"] == 0.0, "the same hits: paired, nothing is uncertain"
    assert main(["compare", run.uri, variant.uri]) == OK
    table = capsys.readouterr().out
    assert "+40.0 ± 9." in table
    assert "pretrain.steps" in table

    real = variant.find("real")
    assert real is not None
    other = real.model_copy(update={"request": real.request.model_copy(update={"inputs": {"data": "other"}})})
    variant.store.put("real/manifest.json", other.to_json())
    rows = {one["arm"]: one for one in printed(capsys, "compare", run.uri, variant.uri)["rows"] if one["run"] != run.uri}
    assert not rows["none"]["paired"]
    assert rows["none"]["margin"] > 0.05, "other test images: independent errors"


@pytest.mark.parametrize("uris", [["runs/one/variants/no"], ["runs/one", "nothing"], ["runs/one", "runs/one"]])
def test_what_cannot_be_compared_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uris: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fake(recipe_of(tmp_path), Run("runs/one"))
    assert main(["compare", *uris]) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
