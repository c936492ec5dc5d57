"""Runs with changed settings: a *variant* of a run lies at ``variants/DIGEST/`` in it, and reuses its artifacts by digest.

A variant is a run like any other, with the same keys. It keeps what the changed settings do not affect: an artifact whose
request, which contains the digests of its inputs, equals that of another run is linked (or copied) instead of computed. So the
old artifacts stay, and only what depends on the change is computed. `adainf run` creates a variant where the run contains
another recipe's artifacts; other commands use it where it exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run, differences
from adainf.pipeline.graph import REPORT, build_graph, extends, request
from adainf.pipeline.records import Manifest, Request, canonical_json, sha256
from adainf.recipe import Recipe
from adainf.storage.base import is_key
from adainf.storage.copying import copy_object

FOLDER = "variants"


@dataclass(frozen=True)
class Place:
    """Where the artifacts of a recipe belong."""

    run: Run
    others: tuple[Run, ...] = ()
    """Runs whose artifacts can be reused."""
    reason: str = ""
    """The first difference to the run that was named; empty if that is `run`."""


def variants(run: Run) -> list[Run]:
    """The variants of a run, in the order of their names."""
    keys = [info.key.split("/", 2) for info in run.store.list(f"{FOLDER}/")]
    names = {
        parts[1] for parts in keys if len(parts) == 3 and is_key(parts[2])
    }  # not of a deleted one's store, such as its lock
    return [Run(run.locate(f"{FOLDER}/{name}")) for name in sorted(names)]


def find_place(recipe: Recipe, run: Run, create: bool) -> Place:
    """The run itself, unless it contains artifacts of other settings; then a variant of it, if there is one or `create`.

    Other real images are another experiment, for which there is no variant. Raises `BadInput` for a corrupt manifest.
    """
    known = variants(run)
    if not (known or create):
        return Place(run)
    reason = conflict(recipe, run)
    if reason is None or reason[0] == "real":
        return Place(run)
    for digest in _digests(recipe):
        variant = Run(run.locate(f"{FOLDER}/{digest}"))
        exists = any(one.uri == variant.uri for one in known)
        if (exists or create) and conflict(recipe, variant) is None:
            others = (run, *(one for one in known if one.uri != variant.uri))
            return Place(variant, others, f"{run.locate(reason[0])}: {reason[1]}")
    return Place(run)


def conflict(recipe: Recipe, run: Run) -> tuple[str, str] | None:
    """The first artifact of the run that another recipe has written, and how it differs; None if there is none."""
    nodes = build_graph(recipe)
    found: dict[str, str] = {}
    growing: set[str] = set()
    """Sets that the recipe extends: what was made from the smaller set would be of another input."""
    for name, node in nodes.items():
        manifest = run.find(name)
        stored = manifest.request if manifest else run.find_claim(name)
        if stored is None:
            continue
        if grown := growing.intersection(node.inputs):
            return name, f"made from a smaller {grown.pop()}"
        inputs = {before: found.get(before, stored.inputs.get(before, "")) for before in node.inputs}
        if "data" in stored.inputs:  # only the stage that read data from outside the run knows their digest
            inputs["data"] = stored.inputs["data"]
        wanted = Request(stage=node.stage, settings=node.settings, inputs=inputs)
        try:
            if node.stage == "generate" and extends(stored, wanted):
                growing.add(name)
                continue
        except BadInput as error:
            return name, str(error)
        if stored != wanted:
            return name, differences(stored, wanted)
        if manifest:
            found[name] = manifest.digest
    report = run.find(REPORT)
    if report is not None and not report.request.inputs.keys() <= nodes.keys():
        return REPORT, f"arms: {report.request.settings.get('arms')} stored, {list(recipe.arms)} requested"
    printed = report.request.settings.get("recipe") if report else None
    wanted_recipe = _flat(recipe.model_dump(mode="json"))
    for path, value in _flat(printed).items():  # the page prints the recipe, without what changes nothing and without paths
        if path != "arms" and value != "PATH" and path in wanted_recipe and wanted_recipe[path] != value:
            return REPORT, f"{path}: {value} stored, {wanted_recipe[path]} requested"
    return None


def reuse(recipe: Recipe, run: Run, others: Iterable[Run]) -> Iterator[tuple[str, Run]]:
    """Link the artifacts of `recipe` that `run` lacks and one of the `others` has. Yields each with the run that had it.

    Each is claimed first and committed last, as by its stage: a kill leaves nothing that the stage cannot resume.
    """
    nodes, others = build_graph(recipe), tuple(others)
    found: dict[str, Manifest] = {}
    for name, node in nodes.items():
        if not all(before in found for before in node.inputs):
            continue
        inputs = {before: found[before] for before in node.inputs}
        manifest = run.find(name)
        for other in others:
            theirs = _find(other, name) if manifest is None else None
            if theirs is None:
                continue
            wanted = request(recipe, name, inputs, theirs.request.inputs.get("data"))
            if theirs.request == wanted or (node.stage == "generate" and _is_smaller(theirs.request, wanted)):
                _link(name, theirs, other, run)
                manifest = theirs
                yield name, other
        if manifest and manifest.request == request(recipe, name, inputs, manifest.request.inputs.get("data")):
            found[name] = manifest


def from_run(uri: str) -> tuple[Run, ...]:
    """The run at `uri` and its variants, to reuse their artifacts. Raises `BadInput` where there is no run."""
    run = Run(uri)
    runs = (run, *variants(run))
    if not any(one.find_claim("real") or one.find("real") for one in runs):
        raise BadInput(f"--from {uri} contains no run: real/ is missing; give the folder or s3://bucket/prefix of a run")
    return runs


def _find(run: Run, name: str) -> Manifest | None:
    with suppress(BadInput):  # a corrupt manifest of another run: the artifact is computed
        return run.find(name)
    return None


def _is_smaller(stored: Request, wanted: Request) -> bool:
    with suppress(BadInput):  # a larger set, or one whose last shard is not full
        return extends(stored, wanted)
    return False


def _link(name: str, manifest: Manifest, source: Run, target: Run) -> None:
    target.claim(name, manifest.request)
    for key in source.keys(name):
        copy_object(source.store, target.store, key)
    target.commit(name, manifest)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """The settings of a recipe by their paths, as pretrain.steps."""
    if not isinstance(value, dict):
        return {path: value} if path else {}
    return {at: inner for key, of in value.items() for at, inner in _flat(of, f"{path}.{key}" if path else key).items()}


def _digests(recipe: Recipe) -> Sequence[str]:
    """Names of the recipe's variant: by its settings without arms and number of images, which a variant may extend, then by the
    complete recipe."""
    settings: dict[str, Any] = {}
    for name, node in build_graph(recipe).items():
        of_node = {key: value for key, value in node.settings.items() if key not in ("arm", "seed")}
        if node.stage == "generate":
            of_node["generate"] = {**of_node["generate"], "images": None}
        settings[node.stage if node.stage in ("pretrain", "evaluate") else name] = of_node
    return [sha256(canonical_json(one))[:8] for one in (settings, recipe.model_dump(mode="json"))]
