"""The metadata of a set of shards: the content of its manifest, and the index of a shard.

A set is a folder with ``manifest.json``; the keys in it are relative to that folder. Both records store columns, not one
record per shard or sample: a hundred thousand shards open in a second, and an index takes some 30 bytes per sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from adainf.errors import BadInput
from adainf.pipeline.records import Output, Record
from adainf.shards.format.summary import DataSummary

Channels = tuple[float, float, float]
"""One number each for R, G and B."""
INDEX_SUFFIX = ".index.json"


def index_key(tar_key: str) -> str:
    """The key of a tar's index."""
    return f"{tar_key.removesuffix('.tar')}{INDEX_SUFFIX}"


class PixelFacts(Record):
    """Statistics of the decoded images of a shard, which all have one size."""

    images: int
    """Number of images that could be decoded."""
    height_px: int
    width_px: int
    sha256: str
    """Of the pixels in order: independent of the compression."""
    channel_sums: tuple[int, int, int]
    """Sum of all R, of all G and of all B values."""
    channel_square_sums: tuple[int, int, int]


def _no_texts(index: dict[str, Any]) -> list[str | None]:
    return [None] * len(index.get("keys", ()))


class ShardIndex(Record):
    """The sidecar of one shard (``train-000000.index.json`` beside ``train-000000.tar``), written after it.

    Columns have one entry per sample, in the tar's order. Offsets point to the data, not the headers, so one range read
    fetches an image. Its CRC-32 detects corruption.
    """

    schema_version: Literal[2] = 2
    tar: Output
    keys: list[str]
    image_offsets: list[int]
    image_sizes_bytes: list[int]
    image_crc32s: list[int]
    """Of the encoded images."""
    labels: list[int]
    """-1 is none."""
    texts: list[str | None] = Field(default_factory=_no_texts)
    """Captions. The stored object omits the column where no sample has one, as indexes of older versions do."""
    image_sha256s: list[str] = Field(default=[])
    """Of the encoded images, where they are the files of the source; else the column is omitted."""
    pixels: PixelFacts | None = None
    """Of the images as they are read; None: indexed without decoding."""

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        columns = (self.image_offsets, self.image_sizes_bytes, self.image_crc32s, self.labels, self.texts)
        if any(len(column) != len(self.keys) for column in columns):
            raise ValueError("its columns differ in length")
        if len(self.image_sha256s) not in (0, len(self.keys)):
            raise ValueError("its columns differ in length")
        return self

    def to_json(self) -> bytes:
        """JSON on one line: indentation would double the size."""
        empty = {name for name, column in (("texts", self.texts), ("image_sha256s", self.image_sha256s)) if not any(column)}
        columns = self.model_dump(mode="json", exclude=empty or None)
        return json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a split; keys are relative to the set's folder."""

    images: int
    tar: Output
    index: Output


class Split(Record):
    """Columns have one entry per shard, in the order of the samples."""

    images: int
    labelled: bool
    channel_means: Channels | None = None
    """Mean of R, G and B over the split, 0..255; None where it was indexed without decoding."""
    channel_stds: Channels | None = None
    """Their standard deviation, 0..255."""
    shard_images: list[int]
    tar_keys: list[str]
    tar_sizes_bytes: list[int]
    tar_sha256s: list[str]
    index_sizes_bytes: list[int]
    index_sha256s: list[str]

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        columns = (self.tar_keys, self.tar_sizes_bytes, self.tar_sha256s, self.index_sizes_bytes, self.index_sha256s)
        if any(len(column) != len(self.shard_images) for column in columns):
            raise ValueError("the columns of its shards differ in length")
        if sum(self.shard_images) != self.images or min(self.shard_images, default=1) < 1:
            raise ValueError(f"its shards do not hold {self.images} images")
        if min(self.tar_sizes_bytes, default=0) < 0:
            raise ValueError("a shard has a negative size")
        return self

    @classmethod
    def of(
        cls,
        shards: list[Shard],
        labelled: bool,
        channel_means: Channels | None = None,
        channel_stds: Channels | None = None,
    ) -> Self:
        """The split that consists of these shards."""
        return cls(
            images=sum(shard.images for shard in shards),
            labelled=labelled,
            channel_means=channel_means,
            channel_stds=channel_stds,
            shard_images=[shard.images for shard in shards],
            tar_keys=[shard.tar.key for shard in shards],
            tar_sizes_bytes=[shard.tar.size_bytes for shard in shards],
            tar_sha256s=[shard.tar.sha256 for shard in shards],
            index_sizes_bytes=[shard.index.size_bytes for shard in shards],
            index_sha256s=[shard.index.sha256 for shard in shards],
        )

    def shard(self, number: int) -> Shard:
        """The shard of that number."""
        key = self.tar_keys[number]
        tar = Output(key=key, size_bytes=self.tar_sizes_bytes[number], sha256=self.tar_sha256s[number])
        size, digest = self.index_sizes_bytes[number], self.index_sha256s[number]
        return Shard(self.shard_images[number], tar, Output(key=index_key(key), size_bytes=size, sha256=digest))

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.shard_images)

    @property
    def shards(self) -> Iterator[Shard]:
        """All of them, in order."""
        return map(self.shard, range(len(self)))


class Originals(Record):
    """How the images of a set are read that keeps the files of its source, with images of several sizes."""

    size_px: int
    """Where all images must have one size: the central square, resized to this height and width."""
    exif_transpose: bool
    sixteen_bit: Literal["scale", "refuse"]
    decode: Literal["exact", "scaled"]
    """See `adainf.recipe.real.ReadsFiles`."""


class ShardSet(Record):
    """The content of the manifest of `real`, of `generated`, and of an indexed folder of tars."""

    height_px: Annotated[int, Field(ge=1)] | None
    """Of every image, as it is read; None where images differ in size."""
    width_px: Annotated[int, Field(ge=1)] | None
    channels: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"
    classes: list[str] = Field(default=[])
    """Names of the labels 0, 1, …; empty without labels."""
    splits: dict[str, Split]
    origin: dict[str, JsonValue] = Field(default={})
    """Provenance of the images: the generator's digest, or what the user declared."""
    summary: DataSummary | None = None
    """What the command that read the user's data understood and left out; None for generated sets and those of older
    versions. The stored object omits it then."""

    originals: Originals | None = None
    """None: images are stored as they are read. The stored object omits it then."""

    @model_serializer(mode="wrap")
    def _omit_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        for name in ("summary", "originals"):
            if getattr(self, name) is None:
                fields.pop(name, None)
        return fields

    def has_same_images(self, other: ShardSet) -> bool:
        """Whether both are the same set, apart from their summaries: an older version stored none."""
        return self.model_copy(update={"summary": None}) == other.model_copy(update={"summary": None})

    @property
    def indexed_in_place(self) -> bool:
        """Whether its tars are a user's, of which the indexes select the samples."""
        return self.origin.get("kind") == "index"

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in px of every image; None where images differ in size."""
        return None if self.height_px is None or self.width_px is None else (self.height_px, self.width_px)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px of every image. Raises `BadInput` where images differ in size."""
        if self.size is None:
            raise BadInput("the images of this set differ in size; ingest them with real.image_size_px to give all one size")
        return self.size
