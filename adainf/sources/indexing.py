"""``adainf shards index URI``: a folder of tars that somebody else wrote becomes a set of shards, where it lies.

Every tar is read once and every image decoded, so that what is damaged is known before a job starts. Tars stay as they are;
an index is put beside each, and ``manifest.json`` last. Started again, it does not decode what has its index already.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Manifest, Output, Request, Run, sha256
from adainf.pipeline.progress import Reporter
from adainf.shards.format.manifest import PixelFacts, Shard, ShardIndex, ShardSet, Split, index_key
from adainf.shards.format.png import Pixels, decode_image
from adainf.shards.format.scan import TarSample, samples
from adainf.shards.format.writer import channel_moments, describe, index_of, pixel_facts
from adainf.shards.loader.cache import FETCHES_AT_ONCE
from adainf.sources.base import BadData, numbered_classes
from adainf.sources.tars import find_tars
from adainf.storage import NotFound, PreconditionFailed

MANIFEST = "manifest.json"


class _Indexed(NamedTuple):
    shard: Shard
    labels: list[int]
    facts: PixelFacts | None
    damaged: list[str]


def index_tars(uri: str, reporter: Reporter) -> ShardSet:
    """Index the tars in a folder or at ``s3://bucket/prefix`` as the split `train` of one set.

    Samples that cannot be decoded are told of and kept in the index: a stream ends at them, or has others in their places.
    Raises `BadData` for a tar that is damaged as a whole; `BadInput` where another set has its manifest there.
    """
    store, keys = find_tars(uri, "give the folder that holds the .tar files")
    run = Run(store)
    with reporter.track("index", total=len(keys)) as track, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        indexed = []
        for one in pool.map(lambda key: _index_one(run, key), keys):
            indexed.append(one)
            for problem in one.damaged:
                reporter.info(f"index: {problem}")
            track.advance()
    indexed = [one for one in indexed if one.shard.images]
    if not indexed:
        raise BadData(f"{uri}: its {len(keys)} .tar files hold no image; give the folder that holds the shards")
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
            raise BadInput(f"{run.locate(MANIFEST)} is that of another set; delete it to index these tars anew") from None
    damaged = sum(len(one.damaged) for one in indexed)
    reporter.info(
        f"index: done, {len(labels):,} samples in {len(shards):,} shards"
        + (f", {damaged:,} of them damaged: a stream of them needs damage: quarantine" if damaged else "")
    )
    return content


def _index_one(run: Run, key: str) -> _Indexed:
    where = run.locate(key)
    try:
        data = run.store.get(key)  # checked by the store's own sum where it has one: ours is taken of what arrives here
    except NotFound:
        raise BadData(f"{where} went away while it was indexed; put it back") from None
    tar = Output(key=key, size_bytes=len(data), sha256=sha256(data))
    try:
        entries = samples(data)
    except ValueError as error:
        raise BadData(f"{where}: {error}; fetch or make the shard again") from None
    found = _known(run, tar, entries)
    if found is not None:
        return found
    damaged: list[str] = []
    facts = pixel_facts(_decoded(where, data, entries, damaged))
    index = index_of(tar, data, entries, facts)
    numbered_classes(index.labels, where)
    text = index.to_json()
    run.store.put(index_key(key), text)
    return _Indexed(describe(index, text), index.labels, facts, damaged)


def _known(run: Run, tar: Output, entries: list[TarSample]) -> _Indexed | None:
    try:
        text = run.store.get(index_key(tar.key))
        index = run.parse(ShardIndex, index_key(tar.key), text)
    except (NotFound, BadInput):
        return None
    damaged = index.pixels is not None and index.pixels.images < len(index.keys)  # to be told of again
    bare = index.texts != [entry.text for entry in entries]  # indexed before captions were
    if index.tar != tar or damaged or bare:
        return None
    return _Indexed(describe(index, text), index.labels, index.pixels, [])


def _decoded(where: str, data: bytes, entries: list[TarSample], damaged: list[str]) -> Iterator[Pixels]:
    for entry in entries:
        try:
            yield decode_image(data[entry.image.offset : entry.image.offset + entry.image.size])
        except ValueError as error:
            damaged.append(f"{where}: sample {entry.key}: {error}")
