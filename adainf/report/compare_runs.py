"""``adainf compare RUN…``: the settings in which runs differ, and the differences of their arms with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from adainf.errors import BadInput
from adainf.evaluation.accuracy import Accuracy
from adainf.evaluation.scores import ArmScores
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import UNTRAINED
from adainf.pipeline.records import Manifest
from adainf.recipe import Arm
from adainf.report.comparison import Comparison, compare

_SETTINGS = ("real", "generator", "generated", "quality", "plan", "verify", "pretrain", "evaluate")
_UNSEEN = ("arm", "seed")


@dataclass(frozen=True)
class Compared:
    """One run, as it is compared."""

    uri: str
    settings: dict[str, Any]
    """Path → value of every setting that its artifacts were requested with."""
    real: str
    """Digest of the real images: others have other test images."""
    scores: dict[str, ArmScores]
    """By arm."""


@dataclass(frozen=True)
class Difference:
    """One arm of a run against that arm of the first run, by linear-probe accuracy."""

    uri: str
    arm: str
    accuracy: Accuracy
    comparison: Comparison | None
    """None for the first run, and where it lacks the arm."""
    is_paired: bool
    """Whether both have the same test images and seeds."""
    test_images: int


def read_run(uri: str) -> Compared:
    """The settings and scores of a run. Raises `BadInput` where there is no run."""
    run = Run(uri)
    names = sorted({name for info in run.store.list() if (name := _artifact(info.key))})
    manifests = {name: manifest for name in names if (manifest := run.find(name))}
    if "real" not in manifests:
        raise BadInput(f"{uri} contains no run: real/ is missing; give the folder or s3://bucket/prefix of a run")
    scores = {
        name.removeprefix("evaluate/"): manifest.content_as(ArmScores)
        for name, manifest in manifests.items()
        if name.startswith("evaluate/")
    }
    return Compared(uri, _settings(manifests), manifests["real"].digest, scores)


def differing_settings(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """Path of each setting that is not equal in all runs → its value in each; None where a run lacks it."""
    paths = sorted({path for run in runs for path in run.settings})
    values = {path: [run.settings.get(path) for run in runs] for path in paths}
    return {path: found for path, found in values.items() if any(value != found[0] for value in found)}


def differences(runs: Sequence[Compared]) -> list[Difference]:
    """Every arm of every run against that arm of the first run."""
    first = runs[0]
    arms = [arm for arm in (*get_args(Arm), UNTRAINED) if any(arm in run.scores for run in runs)]
    return [_difference(run, arm, first) for arm in arms for run in runs if arm in run.scores and run.scores[arm].seeds]


def _difference(run: Compared, arm: str, first: Compared) -> Difference:
    mine, images = run.scores[arm], run.scores[arm].test_images
    ours = _accuracy(mine, list(mine.seeds))
    base = first.scores.get(arm)
    if run is first or base is None or not base.seeds:
        return Difference(run.uri, arm, ours, None, False, images)
    common = [seed for seed in mine.seeds if seed in base.seeds]
    is_paired = run.real == first.real and bool(common)
    one, two = _accuracy(mine, common or [*mine.seeds][:1]), _accuracy(base, common or [*base.seeds][:1])
    if not is_paired:  # other test images: their errors are independent
        one, two = replace(one, hits=None), replace(two, hits=None)
    compared = compare({"a": one, "b": two}, "a", "b", min(images, base.test_images))
    return Difference(run.uri, arm, ours, replace(compared, other=first.uri), is_paired, images)


def _accuracy(scores: ArmScores, seeds: Iterable[str]) -> Accuracy:
    return Accuracy.of([scores.seeds[seed].first("linear") for seed in seeds])


def _artifact(key: str) -> str | None:
    """The name of the artifact whose manifest this key is."""
    if key.startswith("variants/"):
        return None
    if key == "plan.json" or (key.startswith("evaluate/") and key.endswith(".json")):
        return key.removesuffix(".json")
    return key.removesuffix("/manifest.json") if key.endswith("/manifest.json") else None


def _settings(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, manifest in manifests.items():
        section = name.partition("/")[0]
        if section not in _SETTINGS:
            continue
        several = name.partition("/")[2] if section in ("generator", "generated", "quality") else ""
        prefix = {"generated": "", "plan": "", "evaluate": ""}.get(section, section)
        settings = {key: value for key, value in manifest.request.settings.items() if key not in _UNSEEN}
        found |= _flat(settings, ".".join(filter(None, (prefix, several))))
    found["arms"] = sorted(arm for arm in {name.split("/")[1] for name in manifests if name.startswith("pretrain/")})
    return found


def _flat(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {at: inner for key, of in value.items() for at, inner in _flat(of, f"{path}.{key}" if path else key).items()}


def as_json(runs: Sequence[Compared], found: Iterable[Difference]) -> dict[str, Any]:
    """All of it, with fractions 0..1."""
    rows = [
        {
            "run": one.uri,
            "arm": one.arm,
            "linear": round(one.accuracy.mean, 6),
            "interval": [round(end, 6) for end in one.accuracy.interval(one.test_images)],
            "difference": None if one.comparison is None else round(one.comparison.difference, 6),
            "margin": None if one.comparison is None else round(one.comparison.margin, 6),
            "paired": one.is_paired,
        }
        for one in found
    ]
    return {"runs": [run.uri for run in runs], "settings": differing_settings(runs), "rows": rows}
