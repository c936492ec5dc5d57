"""``adainf shards index URI``: index a folder of existing tars in place, as a set of shards.

Every tar is read once and every image decoded, so that corruption is detected before a job starts. Tars stay unchanged; an
index is written beside each, and ``manifest.json`` last. Started again, it skips tars that have an index. No tar is held in
memory or on disk: of each, a window and one image.
"""

from __future__ import annotations

import io
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO, NamedTuple

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Output, Request, sha256
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.formats import header_of
from adainf.shards.format.manifest import PixelFacts, Shard, ShardIndex, ShardSet, Split, index_key
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.samples import DEFAULT_FIELDS, Fields, SampleScan, TarSample, number_of
from adainf.shards.format.scan import Forward
from adainf.shards.format.summary import DataSummary, SplitSummary, split_summary
from adainf.shards.format.writer import channel_moments, describe, pixel_facts
from adainf.sources.base import BadData
from adainf.sources.tar_files import find_tars, splits_of
from adainf.sources.tar_rules import Rules, Tally
from adainf.sources.tars import opened
from adainf.storage import NotFound, ObjectInfo, PreconditionFailed

MANIFEST = "manifest.json"
_FIX = "give the folder that holds the .tar files; `adainf shards import` makes a set of other data"
_IN_FLIGHT_BYTES = 128 << 20
"""Limit of the estimated memory of the larger images that are decoded concurrently; a larger one is decoded alone."""
_SMALL_BYTES = 128 << 10
_DECODED = 24
"""Estimated memory of an image while it is decoded, in sizes of its file (JPEG compresses some ten times)."""


class _Indexed(NamedTuple):
    """One tar, with what its images and names say."""

    shard: Shard
    labels: SplitSummary
    most: int
    """The largest label; -1 for none."""
    facts: PixelFacts | None
    corrupt: list[str]
    seen: _Seen


class _Seen(NamedTuple):
    """What was found beside the index."""

    sizes: Counter[tuple[int, int]]
    """(height, width) → images."""
    modes: Counter[str]
    tally: Tally


def index_tars(uri: str, reporter: Reporter, fields: Fields = DEFAULT_FIELDS, skip: bool = False) -> ShardSet:
    """Index the tars in a folder or at ``s3://bucket/prefix`` as one set, with the splits that their names state (`splits_of`).

    Samples that cannot be decoded are reported and kept in the index: a stream raises at them, or replaces them. `fields`:
    which files of a sample are its image, label and caption; `skip`: leave out samples where that is not clear. Raises
    `BadData` for a tar whose structure is corrupt, and `BadInput` where the manifest of another set exists.
    """
    rules = Rules(fields, skip, class_names=False)
    store, tars, is_folder = find_tars(uri, _FIX)
    if not is_folder:
        raise BadData(f"{uri}: a set consists of all tars of a folder; give the folder {store.uri}, or use import")
    splits = splits_of(uri, [tar.key for tar in tars])
    run = Run(store)
    memory, committed = _Memory(_IN_FLIGHT_BYTES), _committed(run)
    with reporter.track("index", total=len(tars)) as track, ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        indexed = []
        for one in pool.map(lambda tar: _index_one(run, tar, rules, memory, committed), tars):
            indexed.append(one)
            for problem in one.corrupt:
                reporter.info(f"index: {problem}")
            track.advance()
    if not any(one.shard.images for one in indexed):
        raise BadData(f"{uri}: its {len(tars)} .tar files contain no images; give the folder of the shards")
    content = _describe(uri, rules, {split: [indexed[number] for number in numbers] for split, numbers in splits.items()})
    manifest = Manifest(request=Request(stage="index", settings={}), content=content.model_dump(mode="json"))
    try:
        store.put_if_absent(MANIFEST, manifest.to_json())
    except PreconditionFailed:
        existing = run.parse(Manifest, MANIFEST, store.get(MANIFEST))
        if existing.request != manifest.request or not existing.content_as(ShardSet).has_same_images(content):
            raise _another_set(run) from None
    corrupt = sum(len(one.corrupt) for one in indexed)
    images, shards = (sum(map(count, content.splits.values())) for count in (lambda split: split.images, len))
    reporter.info(
        f"index: done, {images:,} samples in {shards:,} shards"
        + (f", {corrupt:,} of them corrupt: a stream of them needs damage: quarantine" if corrupt else "")
    )
    assert content.summary is not None
    for line in content.summary.lines("index"):
        reporter.info(line)
    return content


def _describe(uri: str, rules: Rules, splits: dict[str, list[_Indexed]]) -> ShardSet:
    every = [one for split in splits.values() for one in split]
    seen = _Seen(Counter(), Counter(), Tally(rules))
    for one in every:
        seen.sizes.update(one.seen.sizes)
        seen.modes.update(one.seen.modes)
        seen.tally.add(one.seen.tally)
    facts = [one.facts for one in every if one.shard.images]
    equal = {fact and (fact.height_px, fact.width_px) for fact in facts}
    height, width = (equal.pop() if len(equal) == 1 else None) or (None, None)
    counts = {
        name: SplitSummary(
            images=sum(one.labels.images for one in split),
            labelled=sum(one.labels.labelled for one in split),
            captioned=sum(one.labels.captioned for one in split),
        )
        for name, split in splits.items()
    }
    classes = [str(label) for label in range(max(one.most for one in every) + 1)]
    labelled, captioned = (sum(getattr(count, name) for count in counts.values()) for name in ("labelled", "captioned"))
    findings = seen.tally.findings(uri, labelled, captioned)
    if len(splits) > 1:
        findings = findings.model_copy(update={"layout": f"tars named {', '.join(splits)}"})
    return ShardSet(
        height_px=height,
        width_px=width,
        classes=classes,
        splits={name: _split(split) for name, split in splits.items()},
        origin={"kind": "index"},
        summary=DataSummary.of(findings, counts, classes, seen.sizes, seen.modes),
    )


def _split(every: list[_Indexed]) -> Split:
    indexed = [one for one in every if one.shard.images]
    facts = [one.facts for one in indexed if one.facts]
    labelled = bool(indexed) and all(one.labels.labelled == one.labels.images for one in indexed)
    return Split.of([one.shard for one in indexed], labelled, *channel_moments(facts, len(indexed)))


def _committed(run: Run) -> dict[str, str]:
    """Key → SHA-256 of the indexes that an existing manifest lists."""
    try:
        shards = run.parse(Manifest, MANIFEST, run.store.get(MANIFEST)).content_as(ShardSet)
    except (NotFound, BadInput):  # what is there is compared at the end
        return {}
    return {shard.index.key: shard.index.sha256 for split in shards.splits.values() for shard in split.shards}


def _another_set(run: Run) -> BadInput:
    return BadInput(f"{run.locate(MANIFEST)} belongs to another set; delete it to index these tars again")


def _index_one(run: Run, tar: ObjectInfo, rules: Rules, memory: _Memory, committed: dict[str, str]) -> _Indexed:
    """Write the index of one tar, or keep an existing one that fits.

    Raises `BadInput` where that would replace an index of `committed`, whose set would then be corrupt.
    """
    existing = _existing(run, tar)
    if existing is not None:
        index, corrupt, seen = _read(run, tar, rules, memory, decode=False)
        if index.model_copy(update={"pixels": existing[0].pixels}) == existing[0]:
            return _indexed(*existing, corrupt, seen)
    index, corrupt, seen = _read(run, tar, rules, memory, decode=True)
    text = index.to_json()
    if committed.get(index_key(tar.key), sha256(text)) != sha256(text):
        raise _another_set(run)
    run.store.put(index_key(tar.key), text)
    return _indexed(index, text, corrupt, seen)


def _existing(run: Run, tar: ObjectInfo) -> tuple[ShardIndex, bytes] | None:
    """An index of a tar of this size, all of whose images could be decoded (else they are decoded again, to report them)."""
    try:
        text = run.store.get(index_key(tar.key))
        index = run.parse(ShardIndex, index_key(tar.key), text)
    except (NotFound, BadInput):
        return None
    if index.tar.size_bytes != tar.size_bytes or (index.pixels is not None and index.pixels.images < len(index.keys)):
        return None
    return index, text


def _read(run: Run, tar: ObjectInfo, rules: Rules, memory: _Memory, decode: bool) -> tuple[ShardIndex, list[str], _Seen]:
    """The index of a tar, and the samples that cannot be decoded. The tar is read once."""
    samples: list[tuple[TarSample, int]] = []
    corrupt: list[str] = []
    seen = _Seen(Counter(), Counter(), Tally(rules))

    def pixels(scan: SampleScan, source: _LimitedTar) -> Iterator[Pixels]:
        for found in scan:
            sample, data = seen.tally.take(found, tar.key), found.data
            if sample is None:
                continue
            samples.append((sample, zlib.crc32(data)))
            if (header := header_of(io.BytesIO(data))) is not None:
                seen.sizes[header.height_px, header.width_px] += 1
                seen.modes[header.mode] += 1
            if decode:
                try:
                    yield decode_image(data)
                except ValueError as error:
                    corrupt.append(f"{run.locate(tar.key)}: sample {sample.key}: {error}")
            source.release()

    with opened(run.store, tar, rules) as file, closing(_LimitedTar(file, tar.size_bytes, memory)) as source:
        scan = SampleScan(source, rules.fields, read_images=True)
        facts = pixel_facts(pixels(scan, source))
        seen.tally.finish(scan)
        digest = source.finish()
    index = ShardIndex(
        tar=Output(key=tar.key, size_bytes=tar.size_bytes, sha256=digest),
        keys=[sample.key for sample, _ in samples],
        image_offsets=[sample.image.offset for sample, _ in samples],
        image_sizes_bytes=[sample.image.size for sample, _ in samples],
        image_crc32s=[crc32 for _, crc32 in samples],
        labels=[number_of(sample) for sample, _ in samples],
        texts=[sample.text for sample, _ in samples],
        pixels=facts,
    )
    return index, corrupt, seen


def _indexed(index: ShardIndex, text: bytes, corrupt: list[str], seen: _Seen) -> _Indexed:
    captioned = sum(caption is not None for caption in index.texts)
    labels = split_summary(index.labels, captioned)
    return _Indexed(describe(index, text), labels, max(index.labels, default=-1), index.pixels, corrupt, seen)


class _LimitedTar(Forward):
    """A tar whose larger images are read only while memory for their decoding is available."""

    def __init__(self, file: IO[bytes], size: int, memory: _Memory) -> None:
        super().__init__(file, size)
        self._memory, self._held = memory, 0

    def read(self, at: int, size: int) -> bytes:
        if size > _SMALL_BYTES:
            self.release()
            self._memory.acquire(_DECODED * size)
            self._held = _DECODED * size
        return super().read(at, size)

    def release(self) -> None:
        """Give back what the last image needed."""
        self._memory.release(self._held)
        self._held = 0

    close = release


class _Memory:
    """Limits the estimated memory of concurrent decoding."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._used = limit_bytes, 0
        self._changed = threading.Condition()

    def acquire(self, size_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size_bytes <= self._limit)
            self._used += size_bytes

    def release(self, size_bytes: int) -> None:
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()
