"""What is known of a set of shards without opening one: the content of a source's manifest, and a shard's index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from adainf.artifacts import Output, Record


class SampleIndex(Record):
    """Where one sample lies in its tar: byte offsets of the data (not the headers), so that one range read gets it."""

    key: str
    image_offset: int
    image_size_bytes: int
    label: int | None = None


class ShardIndex(Record):
    """The sidecar of one shard (``train-000000.json`` beside ``train-000000.tar``), written after it."""

    schema_version: Literal[1] = 1
    tar: Output
    height_px: int
    width_px: int
    pixels_sha256: str
    """Over the decoded pixels in order: equal for equal images, however they were compressed."""
    channel_sums: tuple[int, int, int]
    """Sum of all R, of all G and of all B values."""
    samples: list[SampleIndex]


class Shard(Record):
    tar: Output
    index: Output
    images: int


class Split(Record):
    images: int
    labelled: bool
    channel_means: tuple[float, float, float]
    """Mean of R, G and B over the split, 0..255."""
    shards: list[Shard]


class ShardSet(Record):
    """The content of the manifests of `real` and `generated`."""

    height_px: int
    width_px: int
    channels: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"
    classes: list[str] = Field(default=[])
    """Names of the labels 0, 1, …; empty without labels."""
    splits: dict[str, Split]
    origin: dict[str, JsonValue] = Field(default={})
    """Where the images came from: the generator's digest, or what the user declared."""

    @property
    def outputs(self) -> list[Output]:
        """Every tar and every index, in the order of the splits."""
        return [output for split in self.splits.values() for shard in split.shards for output in (shard.tar, shard.index)]
