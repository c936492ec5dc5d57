"""What lies in a store: runs and their variants with sizes (`adainf ls`), and what can be deleted (`adainf gc`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest
from adainf.pipeline.variants import FOLDER
from adainf.storage import ObjectInfo, open_store
from adainf.storage.base import is_key
from adainf.storage.local import LocalStore

_MARKS = ("/manifest.json", "/request.json")
_SHARD_SETS = ("real", "generated")


@dataclass
class Listed:
    """One run, or one variant of a run."""

    uri: str
    objects: list[ObjectInfo] = field(default_factory=list)
    """Keys relative to the run; those of its variants are not among them."""

    @property
    def run(self) -> Run:
        return Run(self.uri)

    @property
    def committed(self) -> list[str]:
        """The names of its finished artifacts."""
        keys = {info.key for info in self.objects}
        names = {key.removesuffix("/manifest.json") for key in keys if key.endswith("/manifest.json")}
        single = {key.removesuffix(".json") for key in keys if key == "plan.json" or key.startswith("evaluate/")}
        return sorted(names | single)

    @property
    def unfinished(self) -> list[str]:
        """The names of the artifacts that are claimed and not committed."""
        claimed = {info.key.removesuffix("/request.json") for info in self.objects if info.key.endswith("/request.json")}
        return sorted(claimed.difference(self.committed))

    @property
    def size_bytes(self) -> int:
        return sum(info.size_bytes for info in self.objects)

    @property
    def shared_bytes(self) -> int:
        """Of objects that other runs link, too: deleting this run does not free them."""
        store = self.run.store
        if not isinstance(store, LocalStore):
            return 0
        return sum(info.size_bytes for info in self.objects if store.links(info.key) > 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.uri,
            "finished": self.committed,
            "unfinished": self.unfinished,
            "size_bytes": self.size_bytes,
            "shared_bytes": self.shared_bytes,
        }


@dataclass(frozen=True)
class Garbage:
    """Objects that no finished artifact needs."""

    run: Run
    reason: str
    name: str
    """The artifact that they belonged to."""
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """What deleting them frees: objects that other runs link, too, count as 0."""
        store = self.run.store
        links = store.links if isinstance(store, LocalStore) else (lambda key: 1)
        return sum(info.size_bytes for info in self.objects if links(info.key) == 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run.uri,
            "artifact": self.name,
            "reason": self.reason,
            "objects": len(self.objects),
            "size_bytes": self.size_bytes,
        }

    def delete(self) -> None:
        """Delete the objects, the claim last: what is left after a kill is still found as unfinished."""
        for info in sorted(self.objects, key=lambda info: info.key.endswith(_MARKS)):
            self.run.store.delete(info.key)


def list_runs(uri: str) -> list[Listed]:
    """The runs in the folder or prefix `uri`, at any depth, each followed by its variants; `uri` may be a run itself."""
    store = open_store(uri)
    objects = list(store.list())
    roots = {folder for info in objects for mark in _MARKS if (folder := _run_of(info.key, f"real{mark}")) is not None}
    there = uri.rstrip("/")
    found = {root: Listed(f"{there}/{root}" if root else there or "/") for root in sorted(roots)}
    for info in objects:
        root = next((folder for folder in _parents(info.key) if folder in found), None)
        if root is not None:
            key = info.key[len(root) + 1 :] if root else info.key
            if is_key(key) and not key.startswith(f"{FOLDER}/"):  # not the files of the run's own store
                found[root].objects.append(ObjectInfo(key, info.size_bytes, info.etag))
    return list(found.values())


def find_garbage(listed: Listed, unfinished: bool) -> Iterator[Garbage]:
    """Checkpoints of finished artifacts, shards that no manifest names, and, if `unfinished`, artifacts that never finished."""
    run, committed = listed.run, set(listed.committed)
    for name in sorted(committed | set(listed.unfinished)):
        own = [info for info in listed.objects if info.key.startswith(f"{name}/")]
        if name not in committed:
            if unfinished:
                yield Garbage(run, "never finished", name, tuple(own))
            continue
        if left := [info for info in own if info.key.startswith(f"{name}/checkpoints/")]:
            yield Garbage(run, "checkpoints of a finished stage", name, tuple(left))
        if name.partition("/")[0] in _SHARD_SETS:
            used = _folders(run.find(name))
            inside = [info for info in own if "/" in info.key.removeprefix(f"{name}/")]
            orphans = [info for info in inside if info.key.removeprefix(f"{name}/").partition("/")[0] not in used]
            if used and orphans:
                yield Garbage(run, "shards of other settings", name, tuple(orphans))


def remove(listed: Listed) -> Garbage:
    """The complete run, as garbage."""
    return Garbage(listed.run, "the complete run", "", tuple(listed.objects))


def require_runs(uri: str) -> list[Listed]:
    """As `list_runs`. Raises `BadInput` where there is none."""
    found = list_runs(uri)
    if not found:
        raise BadInput(f"{uri} contains no run: no real/ in it; give a run, or a folder of runs such as runs")
    return found


def size_text(size_bytes: int) -> str:
    """1234567 → "1.2 MB"."""
    size, units = float(size_bytes), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"


def _run_of(key: str, mark: str) -> str | None:
    """The folder of the run that contains this key, if the key is the `mark` of a run."""
    folder, _, last = f"/{key}".rpartition(f"/{mark}")
    return folder.removeprefix("/") if not last and f"/{key}".endswith(f"/{mark}") else None


def _parents(key: str) -> Iterable[str]:
    """The folders that contain a key, the innermost first; "" is the store itself."""
    parts = key.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]


def _folders(manifest: Manifest | None) -> set[str]:
    """The folders inside a set of shards that its manifest names; empty where it is not such a manifest."""
    splits: Any = manifest.content.get("splits") if manifest else None
    if not isinstance(splits, dict):
        return set()
    return {str(key).partition("/")[0] for split in splits.values() for key in split.get("tar_keys", ())}
