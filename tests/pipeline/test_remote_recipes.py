"""Recipes in a store: others may be able to write there, so what is read is checked, and programs need a permission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from adainf.cli import main
from adainf.errors import BAD_INPUT, BadInput
from adainf.kubernetes.controller.recipes import RecipeSource
from adainf.kubernetes.controller.run_state import recipe_key
from adainf.kubernetes.controller.state import Attempt
from adainf.kubernetes.controller.templates import Owner
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import ALLOW_EXTERNAL, DIGEST, load_recipe
from adainf.pipeline.records import sha256
from adainf.storage import open_store

TINY = Path(__file__).parents[2] / "recipes" / "demo.yaml"
EXTERNAL: dict[str, Any] = {"kind": "external", "checkpoint": "/models/m.pkl", "sha256": "0" * 64}
COMMAND = {"command": ["sh", "run.sh", "{first}", "{count}", "{seed}", "{output}"]}


def _recipe(**changes: Any) -> bytes:
    data: dict[str, Any] = yaml.safe_load(TINY.read_text())
    return yaml.safe_dump(data | changes).encode()


def test_a_recipe_in_a_store_has_the_digest_that_the_pod_was_given(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch one that somebody with write access to the bucket has changed, by a byte or entirely."""
    store, data = open_store(s3_env), TINY.read_bytes()
    uri = f"{s3_env}/recipes/a.yaml"
    store.put("recipes/a.yaml", data)
    expected = load_recipe(TINY)
    assert load_recipe(uri) == expected
    monkeypatch.setenv(DIGEST, sha256(data))
    assert load_recipe(uri) == expected
    assert load_recipe(TINY) == expected
    for changed in (data + b"\n", data.replace(b"steps", b"Steps"), b"", b"\xff"):
        store.put("recipes/a.yaml", changed)
        with pytest.raises(BadInput, match=r"recipes/a\.yaml has SHA-256 .* expected .* check who can write"):
            load_recipe(uri)
    monkeypatch.delenv(DIGEST)
    with pytest.raises(BadInput, match="expected"):
        load_recipe(uri, digest=sha256(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"generator": EXTERNAL | COMMAND},
        {"generator": EXTERNAL | {"callable": "os:system"}},
        {"generator": None, "generators": {"own": {}, "b": {"generator": EXTERNAL | {"callable": "os:system"}}}},
    ],
)
@pytest.mark.parametrize("command", ["fit", "generate", "run"])
def test_programs_of_a_recipe_in_a_store_need_a_permission(
    s3_env: str,
    tmp_path: Path,
    changes: dict[str, Any],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: list[str] = []
    monkeypatch.setattr("adainf.cli.run_stage", lambda stage, *_, **__: started.append(stage))
    data = yaml.safe_load(_recipe(**{name: value for name, value in changes.items() if value}))
    if changes["generator"] is None:
        own = {"generator": data.pop("generator"), "generate": data.pop("generate", {})}
        data["generators"]["own"] = own
        data["generators"]["b"]["generate"] = own["generate"]
    text = yaml.safe_dump(data)
    (tmp_path / "local.yaml").write_text(text)
    open_store(s3_env).put("r.yaml", text.encode())
    uri, run = f"{s3_env}/r.yaml", ["--run", str(tmp_path / "run")]
    assert main([command, uri, *run]) == BAD_INPUT
    message = capsys.readouterr().err
    assert "--allow-external" in message
    assert ("os:system" if "callable" in text else "sh run.sh") in message
    assert started == []
    main([command, str(tmp_path / "local.yaml"), *run])
    main([command, uri, "--allow-external", *run])
    monkeypatch.setenv(ALLOW_EXTERNAL, "1")
    main([command, uri, *run])
    assert started == [command] * 3
    monkeypatch.setenv(ALLOW_EXTERNAL, "0")
    assert main([command, uri, *run]) == BAD_INPUT
    assert main(["recipe", "show", uri]) == 0, "reading it is allowed"


def test_a_controller_does_not_follow_a_changed_copy(tmp_path: Path) -> None:
    """A new process of the controller, whose applied recipe is invalid, falls back to the newest intact copy."""
    run, (old, new) = Run(str(tmp_path)), (_recipe(name="old"), _recipe(name="new"))
    for data in (old, new):
        run.store.put(recipe_key(sha256(data)), data)
    attempts = [
        Attempt(f"job-{n}", "ingest", n, float(n), "active", float(n), recipe_sha256=sha256(data))
        for n, data in enumerate((old, new))
    ]
    source = RecipeSource(run, Owner("adainf", "ab12cd34-0000", "ns"), tmp_path / "missing.yaml")
    found = source.select(attempts).loaded
    assert found
    assert found.recipe.name == "new"
    run.store.put(recipe_key(sha256(new)), _recipe(name="evil"))
    found = RecipeSource(run, Owner("adainf", "ab12cd34-0000", "ns"), tmp_path / "missing.yaml").select(attempts).loaded
    assert found
    assert found.recipe.name == "old"
