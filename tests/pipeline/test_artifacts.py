"""Claims and commits: a folder never mixes two requests, and corruption is never silent."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from adainf.errors import BAD_INPUT, BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Output, Request, canonical_json
from adainf.shards.format.manifest import ShardSet

REQUEST = Request(stage="ingest", settings={"seed": 0, "size": {"px": 8}}, inputs={})
OTHER = Request(stage="ingest", settings={"seed": 1, "size": {"px": 16}}, inputs={})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


def committed(run: Run, name: str = "real", data: bytes = b"pixels") -> Manifest:
    assert run.claim(name, REQUEST) is None
    output = run.write(f"{name}/a.tar", data)
    return run.commit(name, Manifest(request=REQUEST, outputs=[output], content={"images": 3}))


def test_an_artifact_exists_only_after_its_commit(run: Run) -> None:
    assert run.claim("real", REQUEST) is None
    assert run.find("real") is None
    run.commit("real", Manifest(request=REQUEST))
    found = run.find("real")
    assert found is not None
    assert found.request == REQUEST


def test_the_same_request_finds_the_finished_artifact(run: Run) -> None:
    manifest = committed(run)
    assert run.claim("real", REQUEST) == manifest
    assert run.commit("real", manifest) == manifest


@pytest.mark.parametrize("finished", [True, False])
def test_another_request_is_refused_with_the_settings_that_differ(run: Run, finished: bool, tmp_path: Path) -> None:
    if finished:
        committed(run)
    else:
        run.claim("real", REQUEST)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadInput) as error:
        run.claim("real", OTHER)
    assert "settings.seed: 0 stored, 1 requested; settings.size.px: 8 stored, 16 requested" in str(error.value)
    assert "choose another --run, or delete" in str(error.value)
    assert error.value.exit_code == BAD_INPUT
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["plan", "evaluate/none"])
def test_a_single_object_is_its_own_manifest(run: Run, name: str, tmp_path: Path) -> None:
    assert run.claim(name, REQUEST) is None
    run.commit(name, Manifest(request=REQUEST))
    assert [path.name for path in (tmp_path / "run").rglob("*.json")] == [f"{Path(name).name}.json"]
    with pytest.raises(BadInput, match="another recipe"):
        run.claim(name, OTHER)


def test_two_results_of_one_request_are_not_mixed(run: Run) -> None:
    committed(run)
    with pytest.raises(BadInput, match="committed by another process with a different result"):
        run.commit("real", Manifest(request=REQUEST, content={"images": 4}))


@pytest.mark.parametrize("corruption", [b"", b"pixel", b"Pixels", b"pixels and more"])
def test_an_object_that_differs_from_its_commit_is_refused(run: Run, corruption: bytes) -> None:
    manifest = committed(run)
    assert run.read(manifest.outputs[0]) == b"pixels"
    run.store.put("real/a.tar", corruption)
    with pytest.raises(BadInput, match=r"real/a.tar does not match its manifest .* restore it, or delete"):
        run.read(manifest.outputs[0])


def test_a_missing_object_is_refused(run: Run) -> None:
    manifest = committed(run)
    run.store.delete("real/a.tar")
    with pytest.raises(BadInput, match="listed in its manifest but missing"):
        run.read(manifest.outputs[0])


@pytest.mark.parametrize("corruption", [b"", b"{", b"[]", b'{"schema_version": 2}', b"\xff\xfe", b'{"request": null}'])
def test_a_corrupt_manifest_or_claim_is_one_sentence(run: Run, corruption: bytes) -> None:
    committed(run)
    run.store.put("real/manifest.json", corruption)
    with pytest.raises(BadInput, match=r"real/manifest.json is corrupt .* restore it, or delete"):
        run.find("real")
    run.store.delete("real/manifest.json")
    run.store.put("real/request.json", corruption)
    with pytest.raises(BadInput, match=r"real/request.json is corrupt"):
        run.claim("real", REQUEST)


@pytest.mark.heavy
def test_a_bit_flip_in_a_digit_is_corruption(run: Run) -> None:
    """A plan's weight of 10 that reads 18 is a valid number: only the manifest's own SHA-256 detects it."""
    run.commit("plan", Manifest(request=REQUEST, content={"real_weight": 10.0, "note": "é"}))
    data = run.store.get("plan.json")
    for at, bit in itertools.product(range(len(data)), range(8)):
        if not data[at : at + 1].isspace():
            run.store.put("plan.json", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with pytest.raises(BadInput, match=r"plan.json is corrupt .* restore it, or delete"):
                run.find("plan")


def test_the_digest_is_that_of_the_stored_bytes(run: Run) -> None:
    import hashlib

    manifest = committed(run)
    assert manifest.digest == hashlib.sha256(run.store.get("real/manifest.json")).hexdigest()
    changed = manifest.model_copy(update={"outputs": [Output(key="real/a.tar", size_bytes=6, sha256="0" * 64)]})
    assert changed.digest != manifest.digest


def test_json_is_canonical() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_content_of_another_shape_is_one_sentence(run: Run) -> None:
    manifest = committed(run)
    with pytest.raises(BadInput, match=r"the manifest that `adainf ingest` wrote is corrupt \(height_px: Field required\)"):
        manifest.content_as(ShardSet)
