"""Object storage: uids, resource versions, conflicts, finalizers, and the journal for watches."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.cluster.clock import timestamp
from tests.cluster.kinds import Kind
from tests.cluster.statuses import Refusal, not_found

Object = dict[str, Any]
T = TypeVar("T")
Key = tuple[str, str, str]
"""Plural, namespace ("" for cluster-scoped objects), name."""


class Store:
    """One lock guards everything. `changed` is notified of each change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1
        self.forgotten = 0
        """A watch from a version up to this one gets 410."""
        self._objects: dict[Key, Object] = {}
        self._journal: list[tuple[int, str, str, Object]] = []

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        with self.lock:
            return copied(self._objects.get((plural, namespace, name)))

    def list(self, plural: str, namespace: str | None = None) -> list[Object]:
        """All objects of a kind, sorted by name. None: in all namespaces."""
        with self.lock:
            keys = sorted(key for key in self._objects if key[0] == plural and namespace in (None, key[1]))
            return [copied(self._objects[key]) for key in keys]

    def create(self, kind: Kind, namespace: str, new: Object, *, dry_run: bool = False) -> Object:
        with self.changed:
            new = named(copied(new))
            metadata = new["metadata"]
            key = (kind.plural, namespace, metadata["name"])
            if key in self._objects:
                raise Refusal(409, f'{kind.resource} "{key[2]}" already exists', reason="AlreadyExists")
            metadata |= {"creationTimestamp": timestamp(), "generation": 1}
            if namespace:
                metadata["namespace"] = namespace
            new |= {"apiVersion": kind.api_version, "kind": kind.name}
            if not dry_run:
                self._put(key, new, "ADDED")
            return copied(new)

    def replace(self, plural: str, new: Object, *, status: bool = False, dry_run: bool = False) -> Object:
        """Replace an object. A stale `resourceVersion` is a conflict. `status`: replace only the status, else all except it."""
        with self.changed:
            metadata = new["metadata"]
            key = (plural, metadata.get("namespace", ""), metadata["name"])
            old = self._objects.get(key)
            if old is None:
                raise not_found(plural, key[2])
            if metadata.get("resourceVersion", "") not in ("", old["metadata"]["resourceVersion"]):
                sentence = "the object has been modified; please apply your changes to the latest version and try again"
                raise Refusal(409, f'Operation cannot be fulfilled on {plural} "{key[2]}": {sentence}')
            if metadata.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                raise Refusal(409, f"Precondition failed: UID in precondition: {metadata['uid']}")
            if status:
                merged = {**old, "status": new.get("status", {})}
            else:
                merged = {**new, "status": old.get("status", {})} if "status" in old else new
            merged = copied(merged)
            for field in ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"):
                if field in old["metadata"]:
                    merged["metadata"][field] = old["metadata"][field]
            if merged != old and not dry_run:
                if merged.get("spec") != old.get("spec"):
                    merged["metadata"]["generation"] += 1
                gone = "deletionTimestamp" in merged["metadata"] and not merged["metadata"].get("finalizers")
                if gone and _grace_is_over(merged):
                    self._remove(key, merged)
                else:
                    self._put(key, merged, "MODIFIED")
            return copied(merged)

    def edit(self, plural: str, each: Object, change: Callable[[Object], object], *, status: bool = False) -> None:
        """Apply `change` to the newest version of an object, if it still exists."""
        with self.lock:
            metadata = each["metadata"]
            newest = self.get(plural, metadata.get("namespace", ""), metadata["name"])
            if newest is not None and newest["metadata"]["uid"] == metadata["uid"]:
                change(newest)
                self.replace(plural, newest, status=status)

    def delete(self, plural: str, each: Object, *, grace_s: int | None = None, finalizer: str | None = None) -> Object:
        """Delete an object, or mark it as terminating if finalizers (or, of a pod, its kubelet) must finish first."""
        with self.changed:
            metadata = each["metadata"]
            key = (plural, metadata.get("namespace", ""), metadata["name"])
            old = self._objects.get(key)
            if old is None or old["metadata"]["uid"] != metadata["uid"]:
                raise not_found(plural, key[2])
            new = copied(old)
            if finalizer and finalizer not in new["metadata"].setdefault("finalizers", []):
                new["metadata"]["finalizers"].append(finalizer)
            wanted_s = 0
            if plural == "pods":
                idle = "nodeName" not in new["spec"] or new.get("status", {}).get("phase") in ("Succeeded", "Failed")
                wanted_s = new["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
                wanted_s = 0 if idle else wanted_s
                new["metadata"]["deletionGracePeriodSeconds"] = min(
                    wanted_s, new["metadata"].get("deletionGracePeriodSeconds", wanted_s)
                )
            new["metadata"].setdefault("deletionTimestamp", timestamp(wanted_s))  # of a pod: the end of its grace period
            if new["metadata"].get("finalizers") or not _grace_is_over(new):
                if new != old:
                    self._put(key, new, "MODIFIED")
            else:
                self._remove(key, new)
            return copied(new)

    def watch(
        self, plural: str, namespace: str | None, since: int, stop: Callable[[], bool]
    ) -> Iterator[tuple[str, Object] | None]:
        """Yield changes after a version, or None after a quarter of a second without one. Ends when `stop` returns True."""
        while not stop():
            with self.changed:
                if since < self.forgotten:
                    raise Refusal(410, f"too old resource version: {since} ({self.version})")
                found = [entry for entry in self._journal if entry[0] > since]
                if not found:
                    self.changed.wait(0.25)
                since = self.version if found else since
            for _, event, of, each in found:
                if of == plural and namespace in (None, each["metadata"].get("namespace", "")):
                    yield event, copied(each)
            if not found:
                yield None

    def forget(self) -> None:
        """Expire all past versions, like etcd's compaction."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version
            self._journal.clear()
            self.changed.notify_all()

    def _put(self, key: Key, new: Object, event: str) -> None:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._objects[key] = new
        self._journal.append((self.version, event, key[0], copied(new)))
        self.changed.notify_all()

    def _remove(self, key: Key, last: Object) -> None:
        self._put(key, last, "DELETED")
        del self._objects[key]


def copied(thing: T) -> T:
    """A deep copy of JSON. Ten times as fast as `copy.deepcopy`, on which the simulation would spend most of its time."""
    if isinstance(thing, dict):
        return {key: copied(value) for key, value in thing.items()}  # type: ignore[return-value]
    if isinstance(thing, list):
        return [copied(each) for each in thing]  # type: ignore[return-value]
    return thing


def named(new: Object) -> Object:
    """Set the uid, and the name if only `generateName` is set. In place."""
    metadata = new.setdefault("metadata", {})
    metadata.setdefault("uid", str(uuid.uuid4()))
    if "name" not in metadata:
        metadata["name"] = metadata["generateName"][:58] + uuid.uuid4().hex[:5]
    return new


def _grace_is_over(each: Object) -> bool:
    return not each["metadata"].get("deletionGracePeriodSeconds")
