"""The encoder that a command is about: one of a run, or a file of its own."""

from __future__ import annotations

from typing import NamedTuple

from adainf.errors import BadInput
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Manifest, Run, sha256
from adainf.pipeline.graph import pretrained
from adainf.storage import NotFound, open_store
from adainf.storage.base import is_key


class Subject(NamedTuple):
    """A finished encoder."""

    encoder: Encoder
    seed: int | None
    """None where the file alone is known."""
    uri: str
    """Where its weights lie."""
    sha256: str
    """Of its file."""


def find_subject(run: str | None, arm: str | None, seed: int | None, file: str | None) -> Subject:
    """The encoder of `run` and `arm` (and `seed`, else the run's first), or that in `file`.

    Raises `BadInput` where there is no such encoder, and where it is not said which one is meant.
    """
    if (run is None) == (file is None):
        raise BadInput("say which encoder is meant: a run with --arm, or a file with --encoder, and not both")
    if run is None or file is not None:
        return _of_file(str(file))
    if arm is None:
        raise BadInput(f"--arm is missing: say which encoder of {run} is meant")
    there = Run(run)
    found, manifest = find_pretrained(there, arm, seed)
    weights = manifest.output("encoder.safetensors")
    where = there.locate(weights.key)
    return Subject(Encoder.from_bytes(there.read(weights), where), found, where, weights.sha256)


def find_pretrained(run: Run, arm: str, seed: int | None) -> tuple[int, Manifest]:
    """Seed and manifest of a finished encoder; without a seed, the run's first one. Raises `BadInput` where there is none."""
    finished = [
        (parts[1], int(parts[2].removeprefix("seed-")))
        for info in run.store.list("pretrain/")
        if len(parts := info.key.split("/")) == 4 and parts[3] == "manifest.json"
    ]
    seeds = sorted(number for name, number in finished if name == arm and seed in (None, number))
    manifest = run.find(pretrained(arm, seeds[0])) if seeds else None
    if manifest is None:
        names = ", ".join(f"--arm {name} --seed {number}" for name, number in sorted(finished))
        wanted = f"arm {arm!r}" + ("" if seed is None else f" and seed {seed}")
        raise BadInput(f"{run.uri} has no finished encoder of {wanted}; it has {names or 'none at all'}")
    return seeds[0], manifest


def _of_file(uri: str) -> Subject:
    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ("/" if uri.startswith("/") else "."))
    try:
        if not is_key(name):
            raise NotFound(name)
        data = store.get(name)
    except NotFound:
        raise BadInput(f"{uri} is no file; give the encoder.safetensors of an encoder as --encoder") from None
    try:
        encoder = Encoder.from_bytes(data, uri)
    except BadInput as error:
        raise BadInput(f"--encoder: {error}") from None
    return Subject(encoder, None, uri, sha256(data))
