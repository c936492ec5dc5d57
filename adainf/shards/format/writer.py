"""Write the shards of one split, from one process or several. A process that dies is simply started again."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from adainf.errors import BadInput, StageFailed
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Output, sha256
from adainf.shards.format.manifest import Channels, PixelFacts, Shard, ShardIndex, Split, index_key
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.samples import TarSample, number_of, samples
from adainf.shards.format.tar import Compression, Original, Sample, encode_shard
from adainf.storage import NotFound

_BLOCK_IMAGES = 16
"""Images summed together: their squares fit the CPU cache."""
_BLOCK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16
_LINES = 64
"""Rows squared together: their squares take four times the memory of the pixels."""


class Images(Protocol):
    """Samples by index, created or decoded on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class _Written(NamedTuple):
    """The manifest's facts about a shard in the store."""

    shard: Shard
    labelled: bool
    facts: PixelFacts | None


class SplitWriter:
    """Writes samples 0 … `count` - 1 as ``FOLDER/STEM-000000.tar`` … of `shard_images` each, each tar followed by its index.

    Both are written conditionally, so any number of processes may write any shards at any time. Of two that write the same
    shard, the second adopts the existing one if it holds the same samples.
    """

    def __init__(
        self, run: Run, folder: str, stem: str, count: int, shard_images: int, compression: Compression = "stored"
    ) -> None:
        self._run, self._folder, self._stem = run, folder, stem
        self._count, self._shard_images, self._compression = count, shard_images, compression
        self._written: dict[int, _Written] = {}

    def __len__(self) -> int:
        """Number of shards."""
        return -(-self._count // self._shard_images)

    def indices(self, number: int) -> range:
        """The indices of a shard's samples."""
        first = number * self._shard_images
        return range(first, min(first + self._shard_images, self._count))

    def write(self, numbers: range, make: Callable[[range], list[Sample]], advance: Callable[[int], None]) -> None:
        """Write the missing ones of the shards `numbers`; `make` returns the samples of a range of indices.

        One shard is encoded and uploaded while the next is created; at most these two are in memory. `advance` is called with
        the number of images of each shard once it is in the store. An upload in progress finishes even on an error. Raises
        `StageFailed` where an existing shard holds other samples.
        """
        self._find_existing(numbers)
        advance(sum(len(self.indices(number)) for number in numbers if number in self._written))
        with ThreadPoolExecutor(1, "shard") as uploads:
            upload: Future[int] | None = None
            for number in numbers:
                if number in self._written:
                    continue
                made = make(self.indices(number))
                if upload is not None:
                    advance(upload.result())
                upload = uploads.submit(self._commit, number, made)
            if upload is not None:
                advance(upload.result())

    def missing(self) -> list[int]:
        """The shards that are not in the store, intact and with a matching index."""
        self._find_existing(range(len(self)))
        return [number for number in range(len(self)) if number not in self._written]

    def split(self) -> Split:
        """All shards as a split, with merged statistics; none may be missing."""
        return joined_split([self])

    def written(self) -> list[_Written]:
        """All shards, in order; none may be missing."""
        return [self._written[number] for number in range(len(self))]

    def _find_existing(self, numbers: range) -> None:
        """Record the existing shards, by one listing, their sizes and their indexes; no tar is read."""
        sizes_bytes = {info.key: info.size_bytes for info in self._run.store.list(f"{self._folder}/{self._stem}-")}
        for number in numbers:
            size_bytes = sizes_bytes.get(f"{self._folder}/{self._key(number)}")
            if number not in self._written and size_bytes is not None:
                self._check_index(number, size_bytes)

    def _check_index(self, number: int, tar_size_bytes: int) -> None:
        key = index_key(self._key(number))
        try:
            data = self._run.store.get(f"{self._folder}/{key}")
            index = self._run.parse(ShardIndex, f"{self._folder}/{key}", data)
        except (NotFound, BadInput):  # recreated, and compared with the tar
            return
        matches = (index.tar.key, index.tar.size_bytes) == (self._key(number), tar_size_bytes)
        # Originals have keys that are unique in their set, as some readers demand; the bytes of other sets stay as they were.
        prefix = f"{self._stem}-" if index.image_sha256s else ""
        if matches and index.keys == [f"{prefix}{sample:06d}" for sample in self.indices(number)]:
            self._record(number, index, data)

    def _commit(self, number: int, made: list[Sample]) -> int:
        """Write the shard, then its index; the number of its images."""
        key, indices = self._key(number), self.indices(number)
        prefix = f"{self._stem}-" if any(isinstance(sample, Original) for sample in made) else ""
        data = encode_shard(indices.start, made, self._compression, prefix)
        held = self._run.compare_and_swap(f"{self._folder}/{key}", data, may_replace=_is_corrupt)
        digests = [sha256(sample.encoded) for sample in made if isinstance(sample, Original)]
        index = _index(key, data, samples(data), pixel_facts(sample.image for sample in made))
        index = index.model_copy(update={"image_sha256s": digests})
        if held != data:  # for example by another zlib build: the decoded content is what counts
            own, index = index, _decoded_index(key, held)
            if _content(own) != _content(index):
                where = self._run.locate(f"{self._folder}/{key}")
                raise StageFailed(
                    f"{where} holds other samples {indices.start} to {indices.stop - 1} than this process created (another "
                    "kind of device, other versions of torch or Pillow, or not reproducible here); nothing was overwritten: "
                    "resume where that shard was written, or delete it to write it here"
                )
        text = index.to_json()
        # An index is a function of its tar: a different one is corrupt or belongs to a deleted tar.
        self._run.compare_and_swap(f"{self._folder}/{index_key(key)}", text, may_replace=lambda there: True)
        self._record(number, index, text)
        return len(indices)

    def _record(self, number: int, index: ShardIndex, data: bytes) -> None:
        self._written[number] = _Written(describe(index, data), min(index.labels) >= 0, index.pixels)

    def _key(self, number: int) -> str:
        return f"{self._stem}-{number:06d}.tar"


def joined_split(writers: Sequence[SplitWriter]) -> Split:
    """The shards of all writers, one after the other, as one split with merged statistics; none may be missing."""
    written = [each for writer in writers for each in writer.written()]
    facts = [each.facts for each in written if each.facts]
    labelled = bool(written) and all(each.labelled for each in written)
    return Split.of([each.shard for each in written], labelled, *channel_moments(facts, len(written)))


def write_split(
    run: Run,
    folder: str,
    split: str,
    count: int,
    shard_images: int,
    samples: Callable[[range], list[Sample]],
    advance: Callable[[int], None] = lambda images: None,
    compression: Compression = "stored",
) -> Split:
    """Write all shards of a split from this process; their description. See `SplitWriter`."""
    writer = SplitWriter(run, folder, split, count, shard_images, compression)
    writer.write(range(len(writer)), samples, advance)
    return writer.split()


def channel_moments(facts: list[PixelFacts], shards: int) -> tuple[Channels | None, Channels | None]:
    """Means and standard deviations of R, G and B over this many shards, 0..255; None where some have no facts."""
    if len(facts) < shards or not facts:
        return None, None
    pixels = sum(fact.images * fact.height_px * fact.width_px for fact in facts)
    means = np.sum([fact.channel_sums for fact in facts], axis=0) / pixels
    squares = np.sum([fact.channel_square_sums for fact in facts], axis=0) / pixels
    stds = np.sqrt(np.maximum(squares - means**2, 0))
    red, green, blue = zip(means.round(4).tolist(), stds.round(4).tolist(), strict=True)
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def pixel_facts(images: Iterable[Pixels]) -> PixelFacts | None:
    """The facts of a shard's images; None where they differ in size, or there are none."""
    pixels = hashlib.sha256()
    shapes: set[tuple[int, ...]] = set()
    count = 0
    sums, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
    images = iter(images)
    while block := _next_block(images):
        count += len(block)
        shapes |= {image.shape for image in block}
        if len(shapes) > 1:
            del block  # a large image is freed before the next one is decoded
            continue
        # A single large image is not copied.
        values = np.ascontiguousarray(np.stack(block) if len(block) > 1 else block[0][None])  # may be channels-first in memory
        pixels.update(values.data)
        # First sums by position in the image, or in a row of a large one: few sums of three channels are left.
        lines = values.reshape(len(block), -1) if block[0].nbytes <= _SMALL_BYTES else values.reshape(-1, 3 * values.shape[2])
        for at in range(0, len(lines), _LINES):
            some = lines[at : at + _LINES]
            sums += some.sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)
            squares += np.square(some, dtype=np.uint32).sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)
        del block, values, lines, some
    if len(shapes) != 1:
        return None
    height, width, _ = shapes.pop()
    (red, green, blue), (red2, green2, blue2) = sums.tolist(), squares.tolist()
    return PixelFacts(
        images=count,
        height_px=height,
        width_px=width,
        sha256=pixels.hexdigest(),
        channel_sums=(red, green, blue),
        channel_square_sums=(red2, green2, blue2),
    )


def _next_block(images: Iterator[Pixels]) -> list[Pixels]:
    block: list[Pixels] = []
    while len(block) < _BLOCK_IMAGES and sum(image.nbytes for image in block) < _BLOCK_BYTES:
        following = next(images, None)
        if following is None:
            break
        block.append(following)
    return block


def index_of(tar: Output, data: bytes, entries: list[TarSample], pixels: PixelFacts | None) -> ShardIndex:
    """The index of a tar with bytes `data` and samples `entries`."""
    images = memoryview(data)
    return ShardIndex(
        tar=tar,
        keys=[entry.key for entry in entries],
        image_offsets=[entry.image.offset for entry in entries],
        image_sizes_bytes=[entry.image.size for entry in entries],
        image_crc32s=[zlib.crc32(images[entry.image.offset : entry.image.offset + entry.image.size]) for entry in entries],
        labels=[number_of(entry) for entry in entries],
        texts=[entry.text for entry in entries],
        pixels=pixels,
    )


def describe(index: ShardIndex, data: bytes) -> Shard:
    """The shard's entry in its split; `data` is its serialized index."""
    output = Output(key=index_key(index.tar.key), size_bytes=len(data), sha256=sha256(data))
    return Shard(len(index.keys), index.tar, output)


def _index(key: str, data: bytes, entries: list[TarSample], pixels: PixelFacts | None) -> ShardIndex:
    return index_of(Output(key=key, size_bytes=len(data), sha256=sha256(data)), data, entries, pixels)


def _decoded_index(key: str, data: bytes) -> ShardIndex:
    """The index of an existing tar. Raises `ValueError` where it is corrupt."""
    entries = samples(data)
    images = (decode_image(data[entry.image.offset : entry.image.offset + entry.image.size]) for entry in entries)
    return _index(key, data, entries, pixel_facts(images))


def _is_corrupt(data: bytes) -> bool:
    try:
        _decoded_index("", data)
    except ValueError:
        return True
    return False


def _content(index: ShardIndex) -> tuple[object, ...]:
    """The content of a shard, independent of its compression."""
    return index.keys, index.labels, index.texts, index.pixels
