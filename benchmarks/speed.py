"""CPU per image: from a filled cache, in the first epoch from S3, and of the S3 client alone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import child
from benchmarks.child import Values, cpu_s
from benchmarks.common import Bench, Job, Side, median, spread, table
from benchmarks.data import SHARD_IMAGES, arrays, write_ours

CPU = "cpu_us_per_image"
OBJECT_BYTES = 41_000_000
READ_BYTES = 1 << 20
_ZEROS = bytes(OBJECT_BYTES)


def sets(bench: Bench) -> Path:
    """The folder of images that the sides make their sets of: two sources, 1 : 2."""
    real = bench.pick(SHARD_IMAGES, 4 * SHARD_IMAGES)
    return arrays(bench.data / f"images-{real}", real, 2 * real)


def cached(bench: Bench) -> None:
    """``cached_cpu_us_per_image``: steady state, in the process of the training loop."""
    folder, jobs, notes = sets(bench), {}, {}
    for side in bench.having("cached"):
        if hasattr(side.module, "write") and not bench.set_up(bench.job(side, "write", folder=str(folder))):
            continue
        for variant, note in side.module.CACHED.items():
            notes[side, variant] = note
            arguments = {"folder": str(folder), "variant": variant, "least_s": bench.pick(1, 5)}
            jobs[side, variant] = bench.generic(side, child, "cached", **arguments)
    found = bench.interleave(jobs)
    for side, variant in found:
        bench.figures[side.figure(f"cached_{CPU}", variant)] = median(found[side, variant], CPU)
    for side in {side for side, _ in found}:  # the best that it can
        bench.figures[side.figure(f"cached_{CPU}")] = min(median(found[key], CPU) for key in found if key[0] == side)
    _show("Cached or on local disk: batches of 512 uint8 images, 1/3 of them real", found, notes)


def first_epoch(bench: Bench) -> None:
    """``s3_first_epoch_*_cpu_us_per_image``: one pass over one source, nothing cached, the client's CPU only."""
    folder, jobs, notes = sets(bench), {}, {}
    uri = bench.server.uri("sets")
    generated = np.load(folder / "generated.npy", mmap_mode="r")
    for side in bench.having("first_epoch"):
        if side == bench.ours:
            ready = all(
                bench.attempt(f"our {encoding} set", write_ours, f"{uri}/{encoding}", generated, SHARD_IMAGES, encoding)
                for encoding in side.module.EPOCH
            )
        else:
            ready = bench.set_up(bench.job(side, "write", folder=str(folder)))
        if not ready:
            continue
        kept = getattr(side.module, "ON_S3", None)
        if kept is not None:
            bench.server.upload(folder / kept, f"sets/{kept}", "generated-")
        for variant, note in side.module.EPOCH.items():
            notes[side, variant] = note
            place = str(folder) if side != bench.ours and kept is None else uri
            jobs[side, variant] = bench.generic(side, child, "first_epoch", uri=place, variant=variant)
    found = bench.interleave(jobs)
    for side, variant in found:
        where = "s3" if side == bench.ours or hasattr(side.module, "ON_S3") else "local"
        bench.figures[side.figure(f"{where}_first_epoch_{variant}_{CPU}")] = median(found[side, variant], CPU)
    _show("First epoch, one source, nothing cached", found, notes)


def _show(title: str, found: Mapping[tuple[Side, str], list[Values]], notes: Mapping[tuple[Side, str], str]) -> None:
    rows = [
        (side.name, notes[side, variant], spread(values, CPU), spread(values, "wall_us_per_image"), f"{values[0]['images']:,}")
        for (side, variant), values in found.items()
    ]
    table(title, ("side", "what", "CPU us/image", "wall us/image", "images"), rows)


def client(bench: Bench) -> None:
    """``s3_client_cpu_s_per_gb``: objects of 41 MB read whole by our store and by boto3, by 8 threads and by 1."""
    objects = bench.pick(8, 25)
    boto3_client, prefix = bench.server.client(), "client"
    for number in range(objects):
        boto3_client.put_object(Bucket=bench.server.bucket, Key=f"{prefix}/{number}", Body=secrets.token_bytes(OBJECT_BYTES))
    jobs = {
        (reader, threads): Job(
            bench.ours.python,
            __name__,
            "read_objects",
            {"uri": bench.server.uri(prefix), "objects": objects, "threads": threads, "reader": reader},
            bench.server.env(),
        )
        for reader in READERS
        for threads in (8, 1)
    }
    found = bench.interleave(jobs)
    for (reader, threads), repeats in found.items():
        name = f"{'' if reader == 'ours' else f'{reader}_'}s3_client{'' if threads == 8 else '_1_thread'}"
        bench.figures[f"{name}_cpu_s_per_gb"] = median(repeats, "cpu_s_per_gb")
        bench.figures[f"{name}_mb_per_s"] = median(repeats, "mb_per_s")
    rows = [(reader, str(threads), spread(r, "cpu_s_per_gb"), spread(r, "mb_per_s")) for (reader, threads), r in found.items()]
    table(f"S3 client alone: {objects} objects of 41 MB, loopback", ("reader", "threads", "CPU s/GB", "MB/s"), rows)


def read_objects(uri: str, objects: int, threads: int, reader: str) -> Values:
    """A child's task."""
    get = READERS[reader](uri)
    with ThreadPoolExecutor(threads) as pool:
        keys = [str(number) for number in range(objects)]
        list(pool.map(get, keys))  # connections, imports and each thread's first memory are not what is measured
        wall_s, used_s = time.perf_counter(), cpu_s()
        gigabytes = sum(map(len, pool.map(get, keys))) / 1e9
        wall_s, used_s = time.perf_counter() - wall_s, cpu_s() - used_s
    return {"cpu_s_per_gb": used_s / gigabytes, "mb_per_s": 1000 * gigabytes / wall_s}


def _fetcher(uri: str) -> Callable[[str], Sized]:
    """As shards are fetched: into a buffer that each thread reuses, verified only by the manifest's SHA-256."""
    from adainf.shards.format.decode import read_into_buffer
    from adainf.storage import open_store

    store = open_store(uri)
    return lambda key: read_into_buffer(store, key, OBJECT_BYTES)


def _store(uri: str) -> Callable[[str], Sized]:
    from adainf.storage import open_store

    store = open_store(uri)
    return lambda key: store.get(key, verify=False)


def _boto3(uri: str) -> Callable[[str], Sized]:
    body = _bodies(uri)
    return lambda key: body(key).read()


def _dropped(uri: str) -> Callable[[str], Sized]:
    """The least that boto3 can cost: what arrives is thrown away."""
    body = _bodies(uri)

    def get(key: str) -> bytes:
        some = body(key)
        while some.read(READ_BYTES):
            pass
        return _ZEROS

    return get


def _bodies(uri: str) -> Callable[[str], Any]:
    import boto3
    from botocore.config import Config

    bucket, prefix = uri.removeprefix("s3://").split("/", 1)
    s3 = boto3.client("s3", config=Config(response_checksum_validation="when_required"))
    return lambda key: s3.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"]


READERS = {"ours": _fetcher, "ours_get": _store, "boto3": _boto3, "boto3_dropping": _dropped}
