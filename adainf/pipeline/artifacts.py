"""What stages hand each other: requests, manifests and the run that holds them.

An artifact is a set of objects and a manifest. The folder is *claimed* first, by the request that it will answer
(``real/request.json``), and *committed* last, by its manifest (``real/manifest.json``): the manifest's presence means
"whole". Both are put conditionally, so a folder never holds a mix of two requests. An artifact that is a single object
(``plan.json``) is its own manifest and needs no claim.

Manifests hold nothing that differs between two runs of the same request: no time, no host, no duration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

from adainf import __version__
from adainf.errors import BadInput
from adainf.storage import NotFound, PreconditionFailed, Store, open_store


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken of. Raises `ValueError` for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


class Record(BaseModel):
    """A part of a manifest or of its content: immutable, and strict about what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_json(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


ModelT = TypeVar("ModelT", bound=BaseModel)
RecordT = TypeVar("RecordT", bound=Record)


class Request(Record):
    """All that determines an artifact: the same request gives the same bytes."""

    stage: str
    settings: dict[str, JsonValue]
    """The part of the recipe that this stage reads."""
    inputs: dict[str, str] = {}
    """Name of each input artifact → SHA-256 of its manifest; ``data`` → SHA-256 that names what came from outside."""


class Output(Record):
    """One object of an artifact."""

    key: str
    """Relative to the run."""
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, key: str, data: bytes) -> Output:
        """The object `key` with these bytes."""
        return cls(key=key, size_bytes=len(data), sha256=sha256(data))


class Manifest(Record):
    """The commit mark of an artifact, and all that a later stage needs to read it; stored with its own SHA-256."""

    schema_version: Literal[1] = 1
    made_by: str = f"adainf {__version__}"
    request: Request
    outputs: list[Output] = []
    content: dict[str, JsonValue] = {}
    """What the stage has to say: counts, the plan, scores. Typed by the room that writes it."""

    @model_validator(mode="before")
    @classmethod
    def _unchanged(cls, value: Any) -> Any:
        """A digit that was turned into another on a disk is a number like any other; only the sum tells."""
        if not isinstance(value, dict) or "sha256" not in value:
            return value
        body = {name: of for name, of in value.items() if name != "sha256"}
        if sha256(canonical_json(body)) != value["sha256"]:
            raise ValueError("its sha256 is not that of the rest")
        return body

    def to_json(self) -> bytes:
        body = self.model_dump(mode="json")
        return canonical_json({**body, "sha256": sha256(canonical_json(body))})

    def content_as(self, kind: type[ModelT]) -> ModelT:
        """The content as the type that its room gives it. Raises `BadInput` where it is something else."""
        try:
            return kind.model_validate(self.content)
        except ValidationError as error:
            raise BadInput(
                f"the manifest that `adainf {self.request.stage}` wrote is damaged ({_first_problem(error)}); restore it, or "
                "delete its folder and run that stage again"
            ) from None

    def output(self, file_name: str) -> Output:
        """The output of that file name. Raises `BadInput` where the manifest has none."""
        for output in self.outputs:
            if output.key.endswith(f"/{file_name}"):
                return output
        raise BadInput(
            f"the manifest that `adainf {self.request.stage}` wrote is damaged (outputs: no {file_name}); restore it, or "
            "delete its folder and run that stage again"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as stored; it names the artifact in later requests."""
        return sha256(self.to_json())


Extends = Callable[[Request, Request], bool]
"""Whether the second request asks for the artifact of the first and more, so that its objects can be kept."""


def never_extends(stored: Request, wanted: Request) -> bool:
    """No artifact extends another one."""
    return False


class Run:
    """A run: a store whose objects are the artifacts of one chain of stages.

    Artifacts are named by the key of their manifest without ``/manifest.json`` or ``.json``: ``real``, ``plan``,
    ``pretrain/adainf/seed-0``, ``evaluate/adainf``.
    """

    SINGLE_OBJECT = ("plan", "evaluate/", "verify/probes/")
    """Names (or beginnings of names) of the artifacts that are one object and so need no claim."""

    def __init__(self, store: Store | str) -> None:
        self.store = open_store(store) if isinstance(store, str) else store

    @property
    def uri(self) -> str:
        return self.store.uri

    def locate(self, key: str) -> str:
        """The key as a user would find it, for messages."""
        return f"{self.uri.rstrip('/')}/{key}"

    def _is_single(self, name: str) -> bool:
        return any(name == single or (single.endswith("/") and name.startswith(single)) for single in self.SINGLE_OBJECT)

    def manifest_key(self, name: str) -> str:
        return f"{name}.json" if self._is_single(name) else f"{name}/manifest.json"

    def find(self, name: str) -> Manifest | None:
        """The artifact's manifest, or None while it is not committed. Raises `BadInput` where it cannot be read."""
        key = self.manifest_key(name)
        try:
            data = self.store.get(key)
        except NotFound:
            return None
        return self.parse(Manifest, key, data)

    def claimed(self, name: str) -> list[str]:
        """The artifact `name` or, where there is none, those in its folder (``generated/NAME``), finished or not."""
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
        """The artifact's manifest; None while it is not committed, or where `request` extends it.

        Raises `BadInput`, naming the settings that differ, where it answers another request.
        """
        manifest = self.find(name)
        if manifest is None or extends(manifest.request, request):
            return None
        self.check_request(name, manifest.request, request)
        return manifest

    def claim(self, name: str, request: Request, extends: Extends = never_extends) -> Manifest | None:
        """Take the artifact's folder for `request`; return the manifest if it is finished already.

        Where `extends(stored, request)` says so, the folder of a smaller artifact is taken over by compare-and-swap. What it
        holds stays, its manifest too: readers go on with the smaller one until `commit` replaces it.

        Raises `BadInput`, naming the settings that differ, where the folder belongs to another request.
        """
        manifest = self.find_for(name, request, extends)
        if manifest is not None:  # before any write, so that a finished run can be read where it may not be written
            return manifest
        if not self._is_single(name):
            key = f"{name}/request.json"
            held = self.compare_and_swap(
                key, request.to_json(), lambda there: extends(self.parse(Request, key, there), request)
            )
            self.check_request(name, self.parse(Request, key, held), request)
        return None

    def discard(self, name: str) -> None:
        """Remove what an artifact that can never be committed has left, its claim last; nobody has read any of it."""
        claim = f"{name}/request.json"
        for key in [info.key for info in self.store.list(f"{name}/") if info.key != claim]:
            self.store.delete(key)
        self.store.delete(claim)

    def check_request(self, name: str, stored: Request, wanted: Request) -> None:
        """Raise `BadInput`, naming what differs, where the artifact answers another request than the one wanted."""
        if stored == wanted:
            return
        differences = _differences(stored.model_dump(mode="json"), wanted.model_dump(mode="json"))
        raise BadInput(
            f"{self._folder(name)} was written by another recipe or from other inputs ({'; '.join(differences[:3])}); "
            "choose another --run, or delete it to make it again"
        )

    def commit(self, name: str, manifest: Manifest, extends: Extends = never_extends) -> Manifest:
        """Publish the artifact, in place of a smaller one that it extends (see `claim`).

        A second commit of the same bytes is no error; of other bytes it is `BadInput`.
        """
        key = self.manifest_key(name)
        wanted = manifest.to_json()
        held = self.compare_and_swap(
            key, wanted, lambda there: extends(self.parse(Manifest, key, there).request, manifest.request)
        )
        if held != wanted:
            raise BadInput(
                f"{self.locate(key)} was committed by another process with another result; delete "
                f"{self._folder(name)} and run the stage again, on one machine at a time"
            )
        return manifest

    def compare_and_swap(self, key: str, data: bytes, may_replace: Callable[[bytes], bool]) -> bytes:
        """Put `data`, unless an object is there already that does not give way to it; return what is there now.

        Whoever loses a race looks again: nothing that it has not seen is ever replaced.
        """
        while True:
            with suppress(NotFound, PreconditionFailed):
                found = self.store.head(key)
                if found is None:
                    self.store.put_if_absent(key, data)
                    return data
                there = self.store.get(key, etag=found.etag)
                if there == data or not may_replace(there):
                    return there
                self.store.put_if_match(key, data, found.etag)
                return data

    def write(self, key: str, data: bytes) -> Output:
        """Put one object of an artifact that is not committed yet."""
        self.store.put(key, data)
        return Output.of(key, data)

    def read(self, output: Output) -> bytes:
        """The object's bytes, checked against its manifest. Raises `BadInput` where they differ."""
        try:
            data = self.store.get(output.key)
        except NotFound:
            raise BadInput(
                f"{self.locate(output.key)} is named by its manifest but missing; restore it, or delete the folder and "
                "run its stage again"
            ) from None
        if len(data) != output.size_bytes or sha256(data) != output.sha256:
            raise BadInput(
                f"{self.locate(output.key)} does not match its manifest ({len(data)} bytes, SHA-256 {sha256(data)[:12]}; "
                f"expected {output.size_bytes} bytes, {output.sha256[:12]}): it was changed or damaged after it was "
                "committed; restore it, or delete the folder and run its stage again"
            )
        return data

    def _folder(self, name: str) -> str:
        return self.locate(self.manifest_key(name) if self._is_single(name) else f"{name}/")

    def parse(self, kind: type[RecordT], key: str, data: bytes) -> RecordT:
        """The record in the object `key`. Raises `BadInput` where `data` is none."""
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise BadInput(
                f"{self.locate(key)} is damaged ({_first_problem(error)}); restore it, or delete the folder and run its "
                "stage again"
            ) from None


def _differences(stored: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as "path: stored there, wanted now"."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = sorted(stored.keys() | wanted.keys())
        return [d for k in keys for d in _differences(stored.get(k), wanted.get(k), f"{path}.{k}" if path else k)]
    if stored == wanted:
        return []
    return [f"{path}: {_short(stored)} there, {_short(wanted)} now"]


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg'].removeprefix('Value error, ')}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
