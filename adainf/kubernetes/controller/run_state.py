"""The state of a run in its store: finished artifacts, progress of the others, and termination records of pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adainf.errors import BadInput
from adainf.kubernetes.controller.tasks import Task
from adainf.kubernetes.termination_record import TerminationRecord
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import GROWS_WITH, REPORT, Node, build_graph, committed_pieces, extends, request
from adainf.pipeline.records import Manifest, sha256
from adainf.recipe import Recipe
from adainf.storage import NotFound


class RunState:
    """Reads the state of one run for one recipe. All methods raise as the store does."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self._run, self._recipe = run, recipe
        self._records: dict[str, tuple[TerminationRecord, ...]] = {}

    def finished(self) -> tuple[frozenset[str], dict[str, str]]:
        """The committed artifacts that match the recipe, and artifact → error of those that conflict with it or are corrupt.

        A set of generated images with fewer images than the recipe asks for is not finished.
        """
        found: dict[str, Manifest] = {}
        conflicts = {}
        for name, node in {**build_graph(self._recipe), REPORT: None}.items():
            if node is not None and not all(before in found for before in node.inputs):
                continue
            data = self._stored(self._run.manifest_key(name))
            try:
                manifest = data and self._run.parse(Manifest, self._run.manifest_key(name), data)
                if manifest and self._matches(name, node, manifest, found):
                    found[name] = manifest
            except BadInput as error:
                conflicts[name] = str(error)
        return frozenset(found), conflicts

    def _stored(self, key: str) -> bytes | None:
        try:
            return self._run.store.get(key)
        except NotFound:
            return None

    def _matches(self, name: str, node: Node | None, manifest: Manifest, found: Mapping[str, Manifest]) -> bool:
        """Whether the artifact matches the recipe. Raises `BadInput` if it conflicts with it."""
        if node is None:  # the stage itself reports how another report differs
            return manifest.request.inputs == {before: made.digest for before, made in found.items()}
        inputs = {before: found[before] for before in node.inputs}
        wanted = request(self._recipe, name, inputs, manifest.request.inputs.get("data"))
        if node.stage in GROWS_WITH and extends(manifest.request, wanted):
            return False
        self._run.check_request(name, manifest.request, wanted)
        return True

    def token(self, task: Task, finished: Iterable[str]) -> str:
        """The task's progress token: its manifests, the newest checkpoint of each artifact, and the commits of its workers."""
        complete = set(finished)
        parts = [f"m{sum(name in complete for name in task.artifacts)}"]
        for name in task.artifacts:
            steps = [info.key for info in self._run.store.list(f"{name}/checkpoints/") if info.key.endswith(".safetensors")]
            if steps:
                parts.append(f"c{int(steps[-1].rpartition('/')[2].removesuffix('.safetensors'))}")
        if pieces := committed_pieces(self._run, task.stage):
            parts.append(f"s{pieces}")
        return ".".join(parts)

    def records(self, job: str, final: bool) -> tuple[TerminationRecord, ...]:
        """The termination records of a Job's pods, without invalid ones. `final`: all pods have ended, so cache them."""
        if job in self._records:
            return self._records[job]
        texts = [self._run.store.get(info.key) for info in self._run.store.list(f"logs/pods/{job}-")]
        records = tuple(record for text in texts if (record := TerminationRecord.from_json(text)))
        if final:
            self._records[job] = records
        return records

    def store_recipe(self, data: bytes) -> str:
        """Store a copy of the recipe and return its URI, so that a replaced pod reads the recipe of its attempt."""
        key = recipe_key(sha256(data))
        self._run.compare_and_swap(key, data, may_replace=lambda there: True)
        return self._run.locate(key)


def recipe_key(digest: str) -> str:
    """The key of a recipe's copy in the run, by the SHA-256 of the recipe."""
    return f"recipes/{digest[:12]}.yaml"


def done_tasks(tasks: Mapping[str, Task], finished: frozenset[str]) -> frozenset[str]:
    """The tasks whose artifacts are all finished."""
    return frozenset(name for name, task in tasks.items() if finished.issuperset(task.artifacts))
