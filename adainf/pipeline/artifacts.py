"""The run, which contains artifacts: lookup, claim, commit and discard.

An artifact is a set of objects and a manifest. Its folder is *claimed* first, by its request (``real/request.json``), and
*committed* last, by its manifest (``real/manifest.json``): an artifact with a manifest is complete. Both are written by
conditional puts, so a folder never mixes two requests. An artifact that is a single object (``plan.json``) is its own manifest
and needs no claim.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from adainf.errors import BadInput
from adainf.pipeline.records import Manifest, Output, RecordT, Request, first_problem, sha256
from adainf.storage import NotFound, PreconditionFailed, Store, open_store

Extends = Callable[[Request, Request], bool]
"""(stored, wanted) → whether the wanted artifact is a superset of the stored one, so that its objects can be reused."""


def never_extends(stored: Request, wanted: Request) -> bool:
    """The default: no artifact extends another one."""
    return False


class Run:
    """A run: a store whose objects are the artifacts of one pipeline.

    Artifacts are named by the key of their manifest without ``/manifest.json`` or ``.json``: ``real``, ``plan``,
    ``pretrain/adainf/seed-0``, ``evaluate/adainf``.
    """

    SINGLE_OBJECT = ("plan", "evaluate/", "verify/probes/")
    """Names, or prefixes of names, of the artifacts that are a single object."""

    def __init__(self, store: Store | str) -> None:
        self.store = open_store(store) if isinstance(store, str) else store

    @property
    def uri(self) -> str:
        return self.store.uri

    def locate(self, key: str) -> str:
        """The key as a path or URI, for messages."""
        return f"{self.uri.rstrip('/')}/{key}"

    def _is_single(self, name: str) -> bool:
        return any(name == single or (single.endswith("/") and name.startswith(single)) for single in self.SINGLE_OBJECT)

    def manifest_key(self, name: str) -> str:
        return f"{name}.json" if self._is_single(name) else f"{name}/manifest.json"

    def find(self, name: str) -> Manifest | None:
        """The artifact's manifest, or None if it is not committed. Raises `BadInput` if it is corrupt."""
        key = self.manifest_key(name)
        try:
            data = self.store.get(key)
        except NotFound:
            return None
        return self.parse(Manifest, key, data)

    def claimed(self, name: str) -> list[str]:
        """The artifact `name` or, if there is none, those in its folder (``generated/NAME``), finished or not."""
        if self._is_claimed(name):
            return [name]
        keys = [info.key for info in self.store.list(f"{name}/")]
        if self._is_single(f"{name}/"):
            return [key.removesuffix(".json") for key in keys if key.endswith(".json")]
        marks = ("/request.json", "/manifest.json")
        return sorted({key.rpartition("/")[0] for key in keys if key.endswith(marks)})

    def _is_claimed(self, name: str) -> bool:
        return any(self.store.head(key) is not None for key in (self.manifest_key(name), f"{name}/request.json"))

    def find_for(self, name: str, request: Request, extends: Extends = never_extends) -> Manifest | None:
        """The artifact's manifest; None if it is not committed, or if `request` extends it.

        Raises `BadInput`, naming the settings that differ, if it has another request.
        """
        manifest = self.find(name)
        if manifest is None or extends(manifest.request, request):
            return None
        self.check_request(name, manifest.request, request)
        return manifest

    def find_claim(self, name: str) -> Request | None:
        """The request that has claimed the artifact's folder, or None."""
        key = f"{name}/request.json"
        try:
            return None if self._is_single(name) else self.parse(Request, key, self.store.get(key))
        except NotFound:
            return None

    def keys(self, name: str) -> list[str]:
        """The keys of the artifact's objects, without claim, manifest and the state of an unfinished stage."""
        if self._is_single(name):
            return []
        own = (f"{name}/request.json", f"{name}/manifest.json", f"{name}/checkpoints/")
        return [info.key for info in self.store.list(f"{name}/") if not info.key.startswith(own)]

    def claim(self, name: str, request: Request, extends: Extends = never_extends) -> Manifest | None:
        """Claim the artifact's folder for `request`; return the manifest if it is finished already.

        If `extends(stored, request)`, the folder of a smaller artifact is taken over by compare-and-swap. Its objects stay,
        and so does its manifest: readers use the smaller artifact until `commit` replaces it.

        Raises `BadInput`, naming the settings that differ, if the folder belongs to another request.
        """
        manifest = self.find_for(name, request, extends)
        if manifest is not None:  # before any write: finished runs may be read-only
            return manifest
        if not self._is_single(name):
            key = f"{name}/request.json"
            held = self.compare_and_swap(
                key, request.to_json(), lambda stored: extends(self.parse(Request, key, stored), request)
            )
            self.check_request(name, self.parse(Request, key, held), request)
        return None

    def discard(self, name: str) -> None:
        """Delete the objects of an artifact that can never be committed, its claim last. No other stage has read them."""
        claim = f"{name}/request.json"
        for key in [info.key for info in self.store.list(f"{name}/") if info.key != claim]:
            self.store.delete(key)
        self.store.delete(claim)

    def check_request(self, name: str, stored: Request, wanted: Request) -> None:
        """Raise `BadInput`, naming the differences, if the stored request is not the wanted one."""
        if stored == wanted:
            return
        raise BadInput(
            f"{self._folder(name)} was written by another recipe or from other inputs ({differences(stored, wanted)}); "
            "choose another --run, or delete it to compute it again"
        )

    def commit(self, name: str, manifest: Manifest, extends: Extends = never_extends) -> Manifest:
        """Publish the artifact; replace a smaller one that it extends (see `claim`).

        Committing the same bytes twice is no error; other bytes raise `BadInput`.
        """
        key = self.manifest_key(name)
        wanted = manifest.to_json()
        held = self.compare_and_swap(
            key, wanted, lambda stored: extends(self.parse(Manifest, key, stored).request, manifest.request)
        )
        if held != wanted:
            raise BadInput(
                f"{self.locate(key)} was committed by another process with a different result; delete "
                f"{self._folder(name)} and run the stage again, on one machine at a time"
            )
        return manifest

    def compare_and_swap(self, key: str, data: bytes, may_replace: Callable[[bytes], bool]) -> bytes:
        """Put `data` if the key is free or `may_replace(stored bytes)`; return the bytes that are stored afterwards.

        After a lost race it reads again, so it never replaces bytes that it has not seen.
        """
        while True:
            with suppress(NotFound, PreconditionFailed):
                found = self.store.head(key)
                if found is None:
                    self.store.put_if_absent(key, data)
                    return data
                stored = self.store.get(key, etag=found.etag)
                if stored == data or not may_replace(stored):
                    return stored
                self.store.put_if_match(key, data, found.etag)
                return data

    def write(self, key: str, data: bytes) -> Output:
        """Put one object of an uncommitted artifact."""
        self.store.put(key, data)
        return Output.of(key, data)

    def read(self, output: Output) -> bytes:
        """The object's bytes, verified against its manifest. Raises `BadInput` if they differ."""
        try:
            data = self.store.get(output.key)
        except NotFound:
            raise BadInput(
                f"{self.locate(output.key)} is listed in its manifest but missing; restore it, or delete the folder and "
                "run its stage again"
            ) from None
        if len(data) != output.size_bytes or sha256(data) != output.sha256:
            raise BadInput(
                f"{self.locate(output.key)} does not match its manifest ({len(data)} bytes, SHA-256 {sha256(data)[:12]}; "
                f"expected {output.size_bytes} bytes, {output.sha256[:12]}): it was changed or corrupted after the "
                "commit; restore it, or delete the folder and run its stage again"
            )
        return data

    def _folder(self, name: str) -> str:
        return self.locate(self.manifest_key(name) if self._is_single(name) else f"{name}/")

    def parse(self, kind: type[RecordT], key: str, data: bytes) -> RecordT:
        """The record in `data`, the bytes of the object `key`. Raises `BadInput` if they are corrupt."""
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise BadInput(
                f"{self.locate(key)} is corrupt ({first_problem(error)}); restore it, or delete the folder and run its "
                "stage again"
            ) from None


def differences(stored: Request, wanted: Request) -> str:
    """The first differences of two requests, each as "path: VALUE stored, VALUE requested"."""
    return "; ".join(_differences(stored.model_dump(mode="json"), wanted.model_dump(mode="json"))[:3])


def _differences(stored: Any, wanted: Any, path: str = "") -> list[str]:
    """The differences of two JSON values, each as "path: VALUE stored, VALUE requested"."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = sorted(stored.keys() | wanted.keys())
        return [d for k in keys for d in _differences(stored.get(k), wanted.get(k), f"{path}.{k}" if path else k)]
    if stored == wanted:
        return []
    return [f"{path}: {_short(stored)} stored, {_short(wanted)} requested"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
