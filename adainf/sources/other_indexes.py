"""``adainf shards index URI --as FORMAT``: write the indexes of other readers beside the tars of a set, which stay unchanged.

``dali``: ``NAME.idx``, as DALI's ``wds2idx`` writes it (version 1.2). ``webshart``: ``NAME.json``, as webshart and hfutils read
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from adainf.errors import BadInput
from adainf.pipeline.progress import Reporter
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard
from adainf.shards.format.scan import members
from adainf.storage import PreconditionFailed

Format = Literal["dali", "webshart"]


def write_indexes(uri: str, format_: Format, reporter: Reporter) -> None:
    """Write the index of every tar of the set at `uri`.

    Raises `BadInput` for a corrupt tar, for a name that the format cannot hold, and where another file has the index's name.
    """
    folder = ShardFolder.open(uri)
    suffix, encode = _FORMATS[format_]
    shards = [shard for split in folder.shards.splits.values() for shard in split.shards]

    def write(shard: Shard) -> None:
        data = folder.read(shard.tar)
        try:
            text = encode(data)
        except ValueError as error:
            raise BadInput(f"{folder.locate(shard.tar.key)}: {error}; recreate the shard") from None
        key = folder.key(shard.tar.key.removesuffix(".tar") + suffix)
        try:
            folder.run.store.put_if_absent(key, text.encode())
        except PreconditionFailed:
            if folder.run.store.get(key) != text.encode():
                raise BadInput(f"{folder.run.locate(key)} exists with other content; move it elsewhere") from None

    with reporter.track("index", total=len(shards)) as track, ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        for _ in pool.map(write, shards):
            track.advance()
    reporter.info(f"index: done, {len(shards):,} indexes for {format_}")


def _dali(data: bytes) -> str:
    lines: list[list[str]] = []
    last = ""
    for member in members(data):
        folder, slash, name = member.name.rpartition("/")
        stem, _, field = name.partition(".")
        if not stem:
            continue
        if any(character.isspace() for character in member.name):
            raise ValueError(f"the name {member.name!r} contains a space, which separates the columns of this index")
        if last != (last := folder + slash + stem) or not lines:
            lines.append([])
        lines[-1].append(f"{field} {member.offset} {member.size} {member.name}")
    return "".join(f"{line}\n" for line in [f"v1.2 {len(lines)}", *map(" ".join, lines)])


def _webshart(data: bytes) -> str:
    files = {
        member.name: {
            "offset": member.offset,
            "size": member.size,
            "sha256": hashlib.sha256(data[member.offset : member.offset + member.size]).hexdigest(),
        }
        for member in members(data)
    }
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return json.dumps({"filesize": len(data), "hash": git, "hash_lfs": hashlib.sha256(data).hexdigest(), "files": files})


_FORMATS: dict[Format, tuple[str, Callable[[bytes], str]]] = {"dali": (".idx", _dali), "webshart": (".json", _webshart)}
