"""The content of a tar, by our scanner."""

from __future__ import annotations

from typing import NamedTuple

from adainf.shards.format.samples import samples


class Found(NamedTuple):
    key: str
    image: bytes
    label: int | None
    text: str | None


def read_tar(data: bytes) -> list[Found]:
    """Every sample with its encoded image. Raises `ValueError` as `samples` does."""
    found = samples(data)
    assert not any(isinstance(sample.label, str) for sample in found)
    return [
        Found(key, data[at : at + size], label if isinstance(label, int) else None, text)
        for key, (_, at, size), label, text in found
    ]
