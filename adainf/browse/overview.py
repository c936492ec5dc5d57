"""Overview of a run for the viewer: artifacts, plan, arms, and training curves."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, JsonValue

from adainf.browse.lru import LruCache
from adainf.errors import BadInput
from adainf.evaluation.accuracy import Accuracy, accuracy_text, amount, digits_for, share_text, weight_text
from adainf.evaluation.scores import title
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, sha256
from adainf.pipeline.stages import STAGES
from adainf.storage import NotFound

_MAX_POINTS = 400
"""Maximum number of points per curve; a screen shows hardly more."""
_CACHE_BYTES = 32_000_000

Points = list[tuple[int, float]]
"""(done, value)."""


class Overview:
    """Reads the state of a run repeatedly; caches unchanged objects by ETag."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._cache: LruCache[Any] = LruCache(_CACHE_BYTES)

    def read(self) -> dict[str, Any]:
        """For JSON: artifacts in the order of the pipeline, the plan with the result of verify, and the arms.

        A corrupt manifest is reported as the state of its artifact, not raised.
        """
        artifacts: list[dict[str, Any]] = []
        arms: dict[str, dict[str, Any]] = {}
        plan: dict[str, Any] | None = None
        verified: JsonValue = None
        for name in self._names():
            state: dict[str, Any] = {"name": name, "state": "running"}
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
                        arms.setdefault(name.split("/")[1], {}).update(_accuracies(manifest))
            except BadInput as error:
                state |= {"state": "corrupt", "error": str(error)}
            artifacts.append(state)
        return {"artifacts": artifacts, "plan": plan, "verified": verified, "arms": arms}

    def curves(self) -> dict[str, dict[str, Points]]:
        """Curves by loop ("pretrain adainf (seed 0)") and metric ("loss"), from all logs; a later log overrides equal steps."""
        curves: dict[str, dict[str, dict[int, float]]] = {}
        for info in sorted(self._run.store.list("logs/"), key=lambda info: info.key.rpartition("/")[2]):
            if not info.key.endswith(".jsonl"):
                continue
            for label, done, values in self._read_cached(info.key, info.etag, info.size_bytes, _parse_log) or ():
                for name, value in values.items():
                    curves.setdefault(label, {}).setdefault(name, {})[done] = value
        return {
            label: {name: _downsample(sorted(points.items())) for name, points in of.items()} for label, of in curves.items()
        }

    def _names(self) -> list[str]:
        """Names of the artifacts that are finished or running."""
        return [name for stage in STAGES.values() for name in self._run.claimed(stage.artifacts)]

    def _manifest(self, name: str) -> tuple[Manifest, str] | None:
        key = self._run.manifest_key(name)
        info = self._run.store.head(key)
        if info is None:
            return None
        return self._read_cached(
            key, info.etag, info.size_bytes, lambda data: (self._run.parse(Manifest, key, data), sha256(data))
        )

    def _read_cached(self, key: str, etag: str, size_bytes: int, parse: Any) -> Any:
        cached = self._cache.get((key, etag))
        if cached is None:
            try:
                cached = parse(self._run.store.get(key))
            except NotFound:  # deleted in the meantime
                return None
            self._cache.put((key, etag), cached, 4 * size_bytes)  # approximate size of the parsed Python objects
        return cached


def _trained(manifest: Manifest) -> dict[str, Any]:
    shown = ("seed", "steps", "global_batch", "real_weight", "generated_share", "passes_per_real_image")
    found: dict[str, Any] = {name: manifest.content[name] for name in shown if name in manifest.content}
    weight, share, passes = (found.get(name) for name in shown[-3:])
    if isinstance(weight, int | float) and isinstance(share, int | float) and isinstance(passes, int | float):
        found["text"] = [weight_text(weight, share), share_text(share), amount(passes)]
    return found


class _Measure(BaseModel):
    """The fields of a measure that are read; later versions may add fields."""

    protocol: str
    settings: dict[str, Any]
    accuracy: float


class _Seed(BaseModel):
    measures: list[_Measure] = []


class _Scores(BaseModel):
    test_images: int = 0
    seeds: dict[str, _Seed] = {}


def _accuracies(manifest: Manifest) -> dict[str, Any]:
    """Accuracies by the title of the measure, one per seed, and as the report prints them.

    Raises `BadInput` for a manifest of another format.
    """
    found: dict[str, list[float]] = {}
    scores = manifest.content_as(_Scores)
    for seed in scores.seeds.values():
        for measure in seed.measures:
            found.setdefault(title(measure.protocol, measure.settings), []).append(measure.accuracy)
    digits = digits_for(scores.test_images)
    return {"accuracy": found, "text": {name: accuracy_text(Accuracy(tuple(of)), digits) for name, of in found.items()}}


def _parse_log(log: bytes) -> list[tuple[str, int, dict[str, float]]]:
    """Label, done and metrics of each progress line. Other lines are skipped."""
    found = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "progress" and isinstance(entry.get("done"), int):
            values = {
                name: float(value)
                for name, value in entry.items()
                if name not in ("done", "total") and isinstance(value, int | float) and not isinstance(value, bool)
            }
            found.append((str(entry.get("label")), entry["done"], values))
    return found


def _downsample(points: Points) -> Points:
    """At most about `_MAX_POINTS` evenly spaced points, always with the last one."""
    every = -(-len(points) // _MAX_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]
