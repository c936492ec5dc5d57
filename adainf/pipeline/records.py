"""What artifacts are described by: requests, outputs and manifests, and their canonical JSON.

Manifests contain nothing that differs between two runs of the same request: no time, no host, no duration.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

from adainf import __version__
from adainf.errors import BadInput


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Canonical JSON, the input of all digests. Raises `ValueError` for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


class Record(BaseModel):
    """A part of a manifest or of its content: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_json(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


ModelT = TypeVar("ModelT", bound=BaseModel)
RecordT = TypeVar("RecordT", bound=Record)


class Request(Record):
    """Everything that determines an artifact: the same request gives the same bytes."""

    stage: str
    settings: dict[str, JsonValue]
    """The part of the recipe that this stage reads."""
    inputs: dict[str, str] = {}
    """Name of each input artifact → SHA-256 of its manifest; ``data`` → SHA-256 of the data from outside the run."""


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
    """The commit marker of an artifact, and what later stages need to read it; stored with its own SHA-256."""

    schema_version: Literal[1] = 1
    made_by: str = f"adainf {__version__}"
    request: Request
    outputs: list[Output] = []
    content: dict[str, JsonValue] = {}
    """The stage's results: counts, the plan, scores. The package that writes it defines its type."""

    @model_validator(mode="before")
    @classmethod
    def _check_sha256(cls, value: Any) -> Any:
        """Only the SHA-256 detects a bit flip that turns a digit into another one."""
        if not isinstance(value, dict) or "sha256" not in value:
            return value
        body = {name: of for name, of in value.items() if name != "sha256"}
        if sha256(canonical_json(body)) != value["sha256"]:
            raise ValueError("sha256 mismatch")
        return body

    def to_json(self) -> bytes:
        body = self.model_dump(mode="json")
        return canonical_json({**body, "sha256": sha256(canonical_json(body))})

    def content_as(self, kind: type[ModelT]) -> ModelT:
        """The content as an instance of `kind`. Raises `BadInput` if it does not match."""
        try:
            return kind.model_validate(self.content)
        except ValidationError as error:
            raise BadInput(
                f"the manifest that `adainf {self.request.stage}` wrote is corrupt ({first_problem(error)}); restore it, or "
                "delete its folder and run that stage again"
            ) from None

    def output(self, file_name: str) -> Output:
        """The output with that file name. Raises `BadInput` if the manifest has none."""
        for output in self.outputs:
            if output.key.endswith(f"/{file_name}"):
                return output
        raise BadInput(
            f"the manifest that `adainf {self.request.stage}` wrote is corrupt (outputs: no {file_name}); restore it, or "
            "delete its folder and run that stage again"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as stored; later requests identify the artifact by it."""
        return sha256(self.to_json())


def first_problem(error: ValidationError) -> str:
    """The first problem of an invalid record, as FIELD: REASON."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg'].removeprefix('Value error, ')}"
