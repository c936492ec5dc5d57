"""``adainf shards verify URI``: check every byte of a set of shards against its manifest, and decode every image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from adainf.errors import BadInput, StageFailed
from adainf.pipeline.progress import Reporter
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES, decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard


def verify(uri: str, reporter: Reporter) -> None:
    """Report each corrupt sample and shard. Raises `StageFailed` where there is any, after all have been checked."""
    folder = ShardFolder.open(uri)
    shards = [shard for split in folder.shards.splits.values() for shard in split.shards]
    corrupt = 0
    with reporter.track("verify", total=len(shards)) as track, ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        for problems in pool.map(lambda shard: _problems(folder, shard), shards):
            corrupt += bool(problems)
            for problem in problems:
                reporter.info(f"verify: {problem}")
            track.advance()
    if corrupt:
        raise StageFailed(
            f"{folder.uri}: {corrupt} of {len(shards)} shards are corrupt (listed above); restore or recreate them"
        )
    images = sum(shard.images for shard in shards)
    reporter.info(f"verify: done, {images:,} images in {len(shards):,} shards are intact")


def _problems(folder: ShardFolder, shard: Shard) -> list[str]:
    try:
        folder.index(shard)
        found = decode_shard(folder, shard, "quarantine", folder.shards.size).corrupt
    except BadInput as error:
        return [str(error)]
    where = folder.locate(shard.tar.key)
    return [f"{where}: {f'sample {each.key}: ' if each.key else ''}{each.reason}" for each in found]
