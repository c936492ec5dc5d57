"""Finds the encoder that a command names: one of a run, or a file."""

from __future__ import annotations

from typing import NamedTuple

from adainf.errors import BadInput
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import pretrained
from adainf.pipeline.records import Manifest, sha256
from adainf.storage import NotFound, open_store
from adainf.storage.base import is_key


class FoundEncoder(NamedTuple):
    """A trained encoder."""

    encoder: Encoder
    seed: int | None
    """None for an encoder file."""
    uri: str
    """Location of its weights."""
    sha256: str
    """Of the weights file."""


def find_encoder(run: str | None, arm: str | None, seed: int | None, file: str | None) -> FoundEncoder:
    """The encoder of `run` and `arm` (and `seed`, else the run's first), or that in `file`.

    Raises `BadInput` if there is no such encoder, or the arguments do not select exactly one.
    """
    if (run is None) == (file is None):
        raise BadInput("no single encoder is selected: give either a run with --arm, or a file with --encoder")
    if run is None or file is not None:
        return _of_file(str(file))
    if arm is None:
        raise BadInput(f"--arm is missing: give the arm of {run} whose encoder to use")
    there = Run(run)
    found, manifest = find_pretrained(there, arm, seed)
    weights = manifest.output("encoder.safetensors")
    where = there.locate(weights.key)
    return FoundEncoder(Encoder.from_bytes(there.read(weights), where), found, where, weights.sha256)


def find_pretrained(run: Run, arm: str, seed: int | None) -> tuple[int, Manifest]:
    """Seed and manifest of a trained encoder; without a seed, the run's first one. Raises `BadInput` if there is none."""
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
        raise BadInput(f"{run.uri} has no finished encoder of {wanted}; choose from: {names or 'none; run pretrain first'}")
    return seeds[0], manifest


def _of_file(uri: str) -> FoundEncoder:
    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ("/" if uri.startswith("/") else "."))
    try:
        if not is_key(name):
            raise NotFound(name)
        data = store.get(name)
    except NotFound:
        raise BadInput(f"--encoder: {uri} is not a file; give the encoder.safetensors of an encoder") from None
    try:
        encoder = Encoder.from_bytes(data, uri)
    except BadInput as error:
        raise BadInput(f"--encoder: {error}") from None
    return FoundEncoder(encoder, None, uri, sha256(data))
