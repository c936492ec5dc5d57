"""What the run's store says of the chain: what is done, how far the rest is, and how pods have ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from adainf.errors import BadInput
from adainf.kubernetes.controller.state import Record
from adainf.kubernetes.controller.tasks import Task
from adainf.pipeline.artifacts import Manifest, Run, sha256
from adainf.pipeline.graph import REPORT, Node, build_graph, committed_pieces, extends, request
from adainf.recipe import Recipe
from adainf.storage import NotFound


class Ledger:
    """One recipe in one run."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self._run, self._recipe = run, recipe
        self._records: dict[str, tuple[Record, ...]] = {}

    def finished(self) -> tuple[frozenset[str], str]:
        """The artifacts that are committed and answer the recipe; and what makes one of them wrong, a sentence or nothing.

        A set of generated images that the recipe asks more of is not finished. Raises as the store does.
        """
        found: dict[str, Manifest] = {}
        wrong = ""
        for name, node in {**build_graph(self._recipe), REPORT: None}.items():
            if node is not None and not all(before in found for before in node.inputs):
                continue
            data = self._stored(self._run.manifest_key(name))
            try:
                manifest = data and self._run.parse(Manifest, self._run.manifest_key(name), data)
                if manifest and self._answers(name, node, manifest, found):
                    found[name] = manifest
            except BadInput as error:
                wrong = wrong or str(error)
        return frozenset(found), wrong

    def _stored(self, key: str) -> bytes | None:
        try:
            return self._run.store.get(key)
        except NotFound:
            return None

    def _answers(self, name: str, node: Node | None, manifest: Manifest, found: Mapping[str, Manifest]) -> bool:
        """Whether the artifact is what the recipe asks for. Raises `BadInput` where it never will be."""
        if node is None:  # of a report of anything else its stage says what differs
            return manifest.request.inputs == {before: made.digest for before, made in found.items()}
        inputs = {before: found[before] for before in node.inputs}
        wanted = request(self._recipe, name, inputs, manifest.request.inputs.get("data"))
        if node.stage == "generate" and extends(manifest.request, wanted):
            return False
        self._run.check_request(name, manifest.request, wanted)
        return True

    def token(self, task: Task, finished: Iterable[str]) -> str:
        """The task's progress: manifests, the newest checkpoint of each artifact, what its workers have committed."""
        made = set(finished)
        parts = [f"m{sum(name in made for name in task.artifacts)}"]
        for name in task.artifacts:
            steps = [info.key for info in self._run.store.list(f"{name}/checkpoints/") if info.key.endswith(".safetensors")]
            if steps:
                parts.append(f"c{int(steps[-1].rpartition('/')[2].removesuffix('.safetensors'))}")
        if pieces := committed_pieces(self._run, task.stage):
            parts.append(f"s{pieces}")
        return ".".join(parts)

    def records(self, job: str, final: bool) -> tuple[Record, ...]:
        """What the launchers of a Job left, by their index; `final`: no pod is left. One that cannot be read is passed over."""
        if job in self._records:
            return self._records[job]
        texts = [self._run.store.get(info.key) for info in self._run.store.list(f"logs/pods/{job}-")]
        records = tuple(record for text in texts if (record := _read_record(text)))
        if final:
            self._records[job] = records
        return records

    def keep_recipe(self, data: bytes) -> str:
        """Put a copy of the recipe's bytes, and give its address: a pod that is replaced reads the recipe it began with."""
        key = f"recipes/{sha256(data)[:12]}.yaml"
        self._run.compare_and_swap(key, data, may_replace=lambda there: True)
        return self._run.locate(key)


def _read_record(text: bytes) -> Record | None:
    try:
        said = json.loads(text)
        return Record(int(said["exit_code"]), str(said["reason"]), said.get("done"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def done_tasks(tasks: Mapping[str, Task], finished: frozenset[str]) -> frozenset[str]:
    """The tasks all of whose artifacts are finished."""
    return frozenset(name for name, task in tasks.items() if finished.issuperset(task.artifacts))
