"""What a stream's order is bound to, and a 64-bit word for the images of a slice: how ranks find out that they agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.pipeline.artifacts import canonical_json, sha256
from adainf.shards.loader.permutation import mix

Identity = dict[str, JsonValue]


def word_of(identity: Identity) -> int:
    """64 bits of the identity's digest."""
    return int(sha256(canonical_json(identity))[:16], 16)


def slice_word(seed: int, first_position: int, sources: NDArray[np.int64], indices: NDArray[np.int64]) -> int:
    """A word that tells these images in this order at this place from any others."""
    places = np.arange(first_position, first_position + len(sources)).astype(np.uint64)
    words = mix(mix(mix(places) ^ sources.astype(np.uint64)) + indices.astype(np.uint64))
    return int(mix(np.array([int(words.sum(dtype=np.uint64)) ^ seed], np.uint64))[0])


def check_same(there: Identity, here: Identity) -> None:
    """Raise `BadInput`, naming what differs, where a saved state belongs to another order of images."""
    differing = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    if differing:
        said = "; ".join(f"{key}: {_short(there.get(key))} there, {_short(here.get(key))} here" for key in differing)
        raise BadInput(
            f"the saved position belongs to another stream ({said}); open the one that it was saved from, or begin anew"
        )


def _short(value: JsonValue) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
