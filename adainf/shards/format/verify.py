"""``adainf shards verify URI``: every byte of a set of shards against its manifest, and every image decoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from adainf.errors import BadInput, StageFailed
from adainf.pipeline.progress import Reporter
from adainf.shards.format.decode import decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Shard
from adainf.shards.loader.cache import FETCHES_AT_ONCE


def verify(uri: str, reporter: Reporter) -> None:
    """Tell of each damaged sample and shard. Raises `StageFailed` where there is any, after all have been looked at."""
    folder = ShardFolder.open(uri)
    shards = [shard for split in folder.shards.splits.values() for shard in split.shards]
    damaged = 0
    with reporter.track("verify", total=len(shards)) as track, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        for problems in pool.map(lambda shard: _problems(folder, shard), shards):
            damaged += bool(problems)
            for problem in problems:
                reporter.info(f"verify: {problem}")
            track.advance()
    if damaged:
        raise StageFailed(
            f"{folder.uri}: {damaged} of {len(shards)} shards are damaged, as told above; restore or make them again"
        )
    images = sum(shard.images for shard in shards)
    reporter.info(f"verify: done, {images:,} images in {len(shards):,} shards are whole")


def _problems(folder: ShardFolder, shard: Shard) -> list[str]:
    try:
        folder.index(shard)
        found = decode_shard(folder, shard, "quarantine", folder.shards.size).damaged
    except BadInput as error:
        return [str(error)]
    where = folder.locate(shard.tar.key)
    return [f"{where}: {f'sample {damage.key}: ' if damage.key else ''}{damage.reason}" for damage in found]
