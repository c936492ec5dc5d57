"""Open a stream: validate the arguments of `open_stream` and build the `Stream`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from adainf.errors import BadInput
from adainf.shards.format.decode import Policy
from adainf.shards.loader.apportion import is_balanced
from adainf.shards.loader.cache import Cache
from adainf.shards.loader.companions import Companions, open_companions
from adainf.shards.loader.curriculum import Curriculum
from adainf.shards.loader.fetcher import Fetcher, Split
from adainf.shards.loader.fingerprint import APPORTIONMENT, Fingerprint
from adainf.shards.loader.mixture import MixtureSchedule
from adainf.shards.loader.source import CacheMode, Opener, Sources, named
from adainf.shards.loader.stream import Stream
from adainf.shards.loader.weights import as_json, check_weights, is_whole, resolved, shown


def open_stream(
    sources: Sources,
    global_batch: int,
    seed: int,
    *,
    rank: int | None = None,
    world: int | None = None,
    window_shards: int | None = None,
    size_px: int | None = None,
    damage: Policy = "fail",
    cache: Path | str | None = None,
    cache_bytes: int | None = None,
    prefetch_batches: int = 2,
    cached: CacheMode = "auto",
    companions: Companions | None = None,
) -> Stream:
    """Open a stream of batches that mixes the sources by image, not by shard: the share of a source is weight x images, or the
    one that is given.

    `sources`: by name; their order is part of the stream. A bare address has weight 1.
    `global_batch`: images per step over all ranks.
    `seed`: of the order. The same seed, sets, weights and batch give the same batches on any number of ranks.
    `rank`, `world`: of this process; None takes RANK and WORLD_SIZE, as set by launchers, or 0 and 1.
    `window_shards`: None shuffles over all images of a source, whose decoded images must fit the cache. A number shuffles
    within windows of this many shards (or more, fewer than twice as many), for larger sets; it is part of the order.
    `size_px`: crop and resize every image to this square when it is decoded; None leaves images as they are.
    `damage`: what to do about corruption. ``fail`` raises at the first corrupt sample. ``quarantine`` replaces it with the
    next intact sample of its shard and records it (`Stream.damage`), up to one of a thousand samples. A truncated shard always
    raises.
    `cache`, `cache_bytes`: the folder of images, which all processes of the node share, and its limit; None takes
    ADAINF_CACHE and ADAINF_CACHE_BYTES, or the user's cache folder and the space on its disk.
    `cached`: what the cache holds, decoded pixels or encoded images, which threads decode for each batch; ``auto`` takes pixels
    where they take at most 1 GiB or three times the bytes of the shards, and fit. Batches do not depend on it.
    `prefetch_batches`: the number of batches prepared ahead.
    `companions`: a set with candidates of the images of one source; a batch carries one for each (`Batch.companions`).

    Raises `BadInput` where a source is missing or empty, shares cannot be met, or the cache is too small.
    """
    given = named(sources)
    rank = _number("RANK", 0) if rank is None else rank
    world = _number("WORLD_SIZE", 1) if world is None else world
    for option, number in (("rank", rank), ("world", world), ("global_batch", global_batch)):
        if not is_whole(number):
            raise BadInput(f"{option} is {shown(number)}; give a whole number")
    if not 0 <= rank < world:
        raise BadInput(f"rank {rank} of world {world} is invalid; give a rank of 0 … world - 1, or unset RANK and WORLD_SIZE")
    if global_batch < world:
        raise BadInput(f"global_batch is {global_batch}, fewer than the {world} ranks; give at least one image per rank")
    if not is_whole(seed) or not 0 <= seed < 1 << 64:
        raise BadInput(f"seed is {shown(seed)}; set a whole number of 0 … 2^64 - 1")
    for option, value, least in (
        ("window_shards", window_shards, 1),
        ("size_px", size_px, 1),
        ("prefetch_batches", prefetch_batches, 0),
    ):
        if value is not None and (not is_whole(value) or value < least):
            raise BadInput(f"{option} is {shown(value)}; set a whole number of {least} or more")
    if cached not in get_args(CacheMode):
        raise BadInput(f"cached is {shown(cached)}; set it to auto, decoded or encoded")
    if cached != "auto" and window_shards is not None:
        raise BadInput(f"cached is {shown(cached)}, but a windowed stream holds decoded images; leave out one of both")
    check_weights(given)
    folders = {name: source.open() for name, source in given.items()}
    counts = [folders[name].split(source.split).images for name, source in given.items()]
    node = Cache(None if cache is None else Path(cache), cache_bytes)
    originals = any(folder.shards.originals is not None for folder in folders.values())
    opener = Opener(node, damage, size_px, window_shards, cached, originals)
    with ExitStack() as undo:  # close what is open if a later step fails
        undo.callback(node.close)
        windows = [one for name, source in given.items() if (one := opener.windows(folders[name], source.split))] or None
        try:
            mixture = MixtureSchedule(counts, resolved(given, counts), seed, windows, global_batch)
        except ValueError as error:
            raise BadInput(f"{error}") from None
        splits: list[Split] = []
        for name, source in given.items():
            splits.append(opener.open(folders[name], source.split))
            undo.callback(splits[-1].close)
        fetcher = Fetcher(splits, mixture, node)
        if fetcher.size is None and window_shards is None:
            found = ", ".join(f"{name} {s.size[0]} x {s.size[1]}" for name, s in zip(given, splits, strict=True) if s.size)
            raise BadInput(f"the sources' images differ in size ({found} px); set size_px to resize them to one")
        if companions is not None:
            fetcher.companions = open_companions(companions, given, folders, seed, opener)
            undo.callback(fetcher.companions.split.close)
            if fetcher.companions.split.size is None or fetcher.companions.split.size != fetcher.size:
                raise BadInput("companions need images of one size, and candidates of the same; set size_px to resize them")
        undo.pop_all()
    fingerprint: Fingerprint = {
        "order": list(given),
        "sources": {name: folder.digest for name, folder in folders.items()},
        "splits": {name: source.split for name, source in given.items()},
        "weights": dict(zip(given, map(as_json, mixture.used.weights), strict=True)),
        "global_batch": global_batch,
        "seed": seed,
        "window_shards": window_shards,
        "size_px": size_px,
    }
    if is_balanced(mixture.shares):
        fingerprint["apportionment"] = APPORTIONMENT
    if companions is not None:
        fingerprint["companions"] = companions.identity
    first = Curriculum(tuple(given), mixture)
    return Stream(fetcher, first, opener, fingerprint, global_batch, rank, world, prefetch_batches)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"{variable} is {text!r}, not a number; unset it, or start the process with a launcher")
    return int(text)
