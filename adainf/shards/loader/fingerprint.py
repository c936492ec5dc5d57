"""A stream's fingerprint, which determines the order of its images; and 64-bit hashes by which ranks compare their slices."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.pipeline.records import canonical_json, sha256
from adainf.shards.loader.permutation import mix

Fingerprint = dict[str, JsonValue]

APPORTIONMENT: Literal[2] = 2
"""Version of the order of three or more sources; 1, without an entry in the fingerprint, ordered them in another way."""


def hash_of(fingerprint: Fingerprint) -> int:
    """The first 64 bits of the fingerprint's SHA-256."""
    return int(sha256(canonical_json(fingerprint))[:16], 16)


def slice_hash(seed: int, first_position: int, sources: NDArray[np.int64], indices: NDArray[np.int64]) -> int:
    """A 64-bit hash of these images, in this order, at this position."""
    positions = np.arange(first_position, first_position + len(sources)).astype(np.uint64)
    words = mix(mix(mix(positions) ^ sources.astype(np.uint64)) + indices.astype(np.uint64))
    return int(mix(np.array([int(words.sum(dtype=np.uint64)) ^ seed], np.uint64))[0])


def check_ranks(step: int, found: list[int], expected: list[int]) -> None:
    """Raise `BadInput` where the hashes of the ranks' slices differ from those planned."""
    if found != expected:
        wrong = [rank for rank, (one, right) in enumerate(zip(found, expected, strict=False)) if one != right]
        raise BadInput(
            f"step {step}: {len(found)} processes for a stream of {len(expected)} ranks, and ranks {wrong} have other images "
            "than planned; start every process with its own rank and the same sets, weights, batch and seed"
        )


def check_same(saved: Fingerprint, current: Fingerprint) -> None:
    """Raise `BadInput`, with the differences, where a saved state belongs to another order of images."""
    if saved.get("apportionment", 1) != current.get("apportionment", 1) and saved.get("order") == current.get("order"):
        raise BadInput(
            "the saved position belongs to another version of adainf, which orders three or more sources differently; finish "
            "the training with that version, or start from step 0"
        )
    differing = [key for key in sorted(saved.keys() | current.keys()) if saved.get(key) != current.get(key)]
    if differing:
        differences = "; ".join(f"{key}: {_short(saved.get(key))} saved, {_short(current.get(key))} now" for key in differing)
        raise BadInput(
            f"the saved position belongs to another stream ({differences}); open the stream that it was saved from, or start "
            "from step 0"
        )


def _short(value: JsonValue) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
