"""A run as a viewer follows it: its artifacts, its plan, its arms, and their curves while they train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, JsonValue

from adainf.browse.lru import Lru
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Manifest, Run, sha256
from adainf.pipeline.stages import STAGES
from adainf.storage import NotFound

_MOST_POINTS = 400
"""Of a curve: a screen has few more."""
_HELD_BYTES = 32_000_000

Points = list[tuple[int, float]]
"""(done, value)."""


class Overview:
    """Looks at a run again and again; what has not changed is not read again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._held: Lru[Any] = Lru(_HELD_BYTES)

    def read(self) -> dict[str, Any]:
        """Artifacts in the order of the chain, the plan and what verify says of it, and the arms, ready for JSON. What is
        damaged is told, not raised."""
        artifacts: list[dict[str, Any]] = []
        arms: dict[str, dict[str, Any]] = {}
        plan: dict[str, Any] | None = None
        verified: JsonValue = None
        for name in self._names():
            state: dict[str, Any] = {"name": name, "state": "at work"}
            try:
                found = self._manifest(name)
                if found is not None:
                    manifest, digest = found
                    state |= {"state": "done", "made_by": manifest.made_by, "digest": digest}
                    if name == "plan":
                        plan = manifest.content
                    elif name == "verify":
                        verified = manifest.content.get("why")
                    elif name.startswith("pretrain/"):
                        arms.setdefault(name.split("/")[1], {}).setdefault("seeds", []).append(_trained(manifest))
                    elif name.startswith("evaluate/"):
                        arms.setdefault(name.split("/")[1], {})["accuracy"] = _accuracies(manifest)
            except BadInput as error:
                state |= {"state": "damaged", "problem": str(error)}
            artifacts.append(state)
        return {"artifacts": artifacts, "plan": plan, "verified": verified, "arms": arms}

    def curves(self) -> dict[str, dict[str, Points]]:
        """By loop ("pretrain adainf (seed 0)") and value ("loss"), from all logs: where a later one goes over the same steps
        again, it counts."""
        curves: dict[str, dict[str, dict[int, float]]] = {}
        for info in sorted(self._run.store.list("logs/"), key=lambda info: info.key.rpartition("/")[2]):
            if not info.key.endswith(".jsonl"):
                continue
            for label, done, values in self._once(info.key, info.etag, info.size_bytes, _progress) or ():
                for name, value in values.items():
                    curves.setdefault(label, {}).setdefault(name, {})[done] = value
        return {label: {name: _thinned(sorted(points.items())) for name, points in of.items()} for label, of in curves.items()}

    def _names(self) -> list[str]:
        """Artifacts that are there, or at work."""
        return [name for stage in STAGES.values() for name in self._run.claimed(stage.artifacts)]

    def _manifest(self, name: str) -> tuple[Manifest, str] | None:
        key = self._run.manifest_key(name)
        info = self._run.store.head(key)
        if info is None:
            return None
        return self._once(key, info.etag, info.size_bytes, lambda data: (self._run.parse(Manifest, key, data), sha256(data)))

    def _once(self, key: str, etag: str, size_bytes: int, parse: Any) -> Any:
        held = self._held.get((key, etag))
        if held is None:
            try:
                held = parse(self._run.store.get(key))
            except NotFound:  # deleted since
                return None
            self._held.put((key, etag), held, 4 * size_bytes)  # Python's objects take about so much more than their text
        return held


def _trained(manifest: Manifest) -> dict[str, Any]:
    shown = ("seed", "steps", "global_batch", "real_weight", "generated_share", "passes_per_real_image")
    return {name: manifest.content[name] for name in shown if name in manifest.content}


class _Measure(BaseModel):
    """What is read of a measure; a run's manifests may say more than this version knows."""

    protocol: str
    accuracy: float


class _Seed(BaseModel):
    measures: list[_Measure] = []


class _Scores(BaseModel):
    seeds: dict[str, _Seed] = {}


def _accuracies(manifest: Manifest) -> dict[str, list[float]]:
    """By protocol, one for each seed. Raises `BadInput` where the manifest says something else."""
    found: dict[str, list[float]] = {}
    for seed in manifest.content_as(_Scores).seeds.values():
        for measure in seed.measures:
            found.setdefault(measure.protocol, []).append(measure.accuracy)
    return found


def _progress(log: bytes) -> list[tuple[str, int, dict[str, float]]]:
    return list(_lines(log))


def _lines(log: bytes) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Label, done and values of each line that has any; a line that is none is passed over, as a log decides nothing."""
    for line in log.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("event") == "progress" and isinstance(said.get("done"), int):
            values = {
                name: float(value)
                for name, value in said.items()
                if name not in ("done", "total") and isinstance(value, int | float) and not isinstance(value, bool)
            }
            yield str(said.get("label")), said["done"], values


def _thinned(points: Points) -> Points:
    """Evenly, with the last one."""
    every = -(-len(points) // _MOST_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]
