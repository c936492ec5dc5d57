"""``adainf shards index URI``: index a folder of existing tars in place, as a set of shards.

Every tar is read once and every image decoded, so that corruption is detected before a job starts. Tars stay unchanged; an
index is written beside each, and ``manifest.json`` last. Started again, it skips tars that have an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Output, Request, sha256
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.manifest import PixelFacts, Shard, ShardIndex, ShardSet, Split, index_key
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.scan import TarSample, samples
from adainf.shards.format.writer import channel_moments, describe, index_of, pixel_facts
from adainf.sources.base import BadData, numbered_classes
from adainf.sources.tars import find_tars
from adainf.storage import NotFound, PreconditionFailed

MANIFEST = "manifest.json"


class _Indexed(NamedTuple):
    shard: Shard
    labels: list[int]
    facts: PixelFacts | None
    corrupt: list[str]


def index_tars(uri: str, reporter: Reporter) -> ShardSet:
    """Index the tars in a folder or at ``s3://bucket/prefix`` as the split `train` of one set.

    Samples that cannot be decoded are reported and kept in the index: a stream raises at them, or replaces them. Raises
    `BadData` for a tar whose structure is corrupt, and `BadInput` where the manifest of another set exists.
    """
    store, keys = find_tars(uri, "give the folder that holds the .tar files")
    run = Run(store)
    with reporter.track("index", total=len(keys)) as track, ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        indexed = []
        for one in pool.map(lambda key: _index_one(run, key), keys):
            indexed.append(one)
            for problem in one.corrupt:
                reporter.info(f"index: {problem}")
            track.advance()
    indexed = [one for one in indexed if one.shard.images]
    if not indexed:
        raise BadData(f"{uri}: its {len(keys)} .tar files contain no images; give the folder of the shards")
    labels = [label for one in indexed for label in one.labels]
    facts = [one.facts for one in indexed if one.facts]
    sizes = {(fact.height_px, fact.width_px) for fact in facts} if len(facts) == len(indexed) else set()
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    shards = [one.shard for one in indexed]
    content = ShardSet(
        height_px=height,
        width_px=width,
        classes=numbered_classes(labels, uri),
        splits={"train": Split.of(shards, min(labels) >= 0, *channel_moments(facts, len(indexed)))},
        origin={"kind": "index"},
    )
    manifest = Manifest(request=Request(stage="index", settings={}), content=content.model_dump(mode="json"))
    try:
        store.put_if_absent(MANIFEST, manifest.to_json())
    except PreconditionFailed:
        if store.get(MANIFEST) != manifest.to_json():
            raise BadInput(f"{run.locate(MANIFEST)} belongs to another set; delete it to index these tars again") from None
    corrupt = sum(len(one.corrupt) for one in indexed)
    reporter.info(
        f"index: done, {len(labels):,} samples in {len(shards):,} shards"
        + (f", {corrupt:,} of them corrupt: a stream of them needs damage: quarantine" if corrupt else "")
    )
    return content


def _index_one(run: Run, key: str) -> _Indexed:
    where = run.locate(key)
    try:
        data = run.store.get(key)  # verified by the store's checksum if it has one: ours is computed from these bytes
    except NotFound:
        raise BadData(f"{where} was deleted while it was indexed; restore it") from None
    tar = Output(key=key, size_bytes=len(data), sha256=sha256(data))
    try:
        entries = samples(data)
    except ValueError as error:
        raise BadData(f"{where}: {error}; download or recreate the shard") from None
    found = _existing(run, tar, entries)
    if found is not None:
        return found
    corrupt: list[str] = []
    facts = pixel_facts(_decoded(where, data, entries, corrupt))
    index = index_of(tar, data, entries, facts)
    numbered_classes(index.labels, where)
    text = index.to_json()
    run.store.put(index_key(key), text)
    return _Indexed(describe(index, text), index.labels, facts, corrupt)


def _existing(run: Run, tar: Output, entries: list[TarSample]) -> _Indexed | None:
    try:
        text = run.store.get(index_key(tar.key))
        index = run.parse(ShardIndex, index_key(tar.key), text)
    except (NotFound, BadInput):
        return None
    corrupt = index.pixels is not None and index.pixels.images < len(index.keys)  # decode again, to report it
    outdated = index.texts != [entry.text for entry in entries]  # indexed by a version without captions
    if index.tar != tar or corrupt or outdated:
        return None
    return _Indexed(describe(index, text), index.labels, index.pixels, [])


def _decoded(where: str, data: bytes, entries: list[TarSample], corrupt: list[str]) -> Iterator[Pixels]:
    for entry in entries:
        try:
            yield decode_image(data[entry.image.offset : entry.image.offset + entry.image.size])
        except ValueError as error:
            corrupt.append(f"{where}: sample {entry.key}: {error}")
