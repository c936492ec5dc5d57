"""How long until there is a batch: cold, resumed, and from an index of a thousand million samples."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.child import Values, peak_rss_mb
from benchmarks.common import Bench, Job, median, spread, table
from benchmarks.data import BATCH, SHARD_IMAGES, SOURCES, images, once, write_ours, write_ours_manifest
from benchmarks.peers import ours
from benchmarks.speed import sets

RESUMED_STEP = 7
CHECKPOINT = "state.json"
INDEX_SHARDS = 100_000


def first_batch(bench: Bench) -> None:
    """``first_batch_s``: 50,000 real and 1,000,000 generated images on S3 (a tenth in a quick run), an empty cache."""
    uri = bench.server.uri("big")
    for source, count in zip(SOURCES, bench.pick((5_000, 100_000), (50_000, 1_000_000)), strict=True):
        pixels = images(count, SOURCES.index(source))
        if not bench.attempt(f"our large {source} set", write_ours, f"{uri}/{source}", pixels, SHARD_IMAGES):
            return
    found = bench.interleave({"ours": _job(bench, "open_cold", uri=uri)})
    for repeats in found.values():
        bench.figures["first_batch_s"] = median(repeats, "first_batch_s")
        row = (f"{repeats[0]['samples']:,.0f}", spread(repeats, "first_batch_s"), spread(repeats, "second_batch_s"))
        table("Cold start from S3", ("samples", "first batch s", "second s later"), [row])


def resume(bench: Bench) -> None:
    """``resume_ms``, ``resume_local_ms``, ``state_bytes``: saved in a world of one, resumed as rank 1 of two.

    The clock starts when the process has read its checkpoint from the same store; ``…_and_connect_ms`` begins before.
    """
    folder = sets(bench)
    uri = bench.server.uri("resume")
    if not bench.set_up(bench.job(bench.ours, "write", folder=str(folder))):
        return
    bench.server.upload(folder / "ours", "resume")
    places = {"": (uri, folder / "cache-s3"), "_local": (str(folder / "ours"), folder / "cache")}
    shutil.rmtree(folder / "cache-s3", ignore_errors=True)  # it is of objects of an earlier server
    jobs = {}
    for name, (place, cache) in places.items():
        kept = {"uri": place, "cache": str(cache), "saved": str(bench.data / f"resume{name}.json")}
        prefetch = bench.job(bench.ours, "prefetch", uri=place, cache=str(cache))
        if bench.set_up(prefetch) and bench.set_up(_job(bench, "save", **kept)):
            jobs[name] = _job(bench, "load", **kept)
    rows = []
    for name, repeats in bench.interleave(jobs, bench.pick(2, 5)).items():
        bench.figures[f"resume{name}_ms"] = median(repeats, "resume_ms")
        bench.figures[f"resume{name}_and_connect_ms"] = median(repeats, "resume_and_connect_ms")
        bench.figures["state_bytes"] = median(repeats, "state_bytes")
        times = (spread(repeats, "resume_ms"), spread(repeats, "resume_and_connect_ms"))
        rows.append((name[1:] or "S3", *times, f"{repeats[0]['state_bytes']:.0f}"))
    title = "Resumed by rank 1 of 2 from the state of a world of 1, cache in place, the same ids"
    table(title, ("set", "first batch ms", "with the checkpoint's read before ms", "state bytes"), rows)


def index(bench: Bench) -> None:
    """``index_open_s``, ``index_rss_mb``, ``index_first_batch_ids_ms``: a manifest of 10^5 shards of 10^4 samples."""
    folder = bench.data / "index"

    def write(to: Path) -> None:
        write_ours_manifest(str(to), INDEX_SHARDS, SHARD_IMAGES)

    if not bench.attempt("our large manifest", once, folder, write):
        return
    values = {"index_open_s": "open s", "index_rss_mb": "peak RSS MB", "index_first_batch_ids_ms": "ids of the first batch ms"}
    for repeats in bench.interleave({"ours": _job(bench, "open_index", uri=str(folder))}).values():
        bench.figures |= {value: median(repeats, value) for value in values}
        row = [spread(repeats, value) for value in values]
        table("An index of 10^9 samples in 10^5 shards, no torch", list(values.values()), [row])


def _job(bench: Bench, function: str, **arguments: Any) -> Job:
    return Job(bench.ours.python, __name__, function, arguments, bench.server.env())


# The rest are children's tasks.


def open_cold(uri: str) -> Values:
    _import()
    with tempfile.TemporaryDirectory() as scratch:
        began_s = time.perf_counter()
        with ours.mixed(uri, real_weight=10.0, global_batch=BATCH, cache=Path(scratch) / "cache") as stream:
            batches = iter(stream)
            next(batches)
            first_s = time.perf_counter()
            next(batches)
            second_s = time.perf_counter()
            samples = _samples(uri)
    return {"first_batch_s": first_s - began_s, "second_batch_s": second_s - first_s, "samples": samples}


def save(uri: str, cache: str, saved: str) -> None:
    """Take some batches alone; keep the state, and the ids of the batch that comes next."""
    from adainf.storage import open_store

    with ours.mixed(uri, global_batch=BATCH, cache=Path(cache), rank=0, world=1) as stream:
        batches = iter(stream)
        for _ in range(RESUMED_STEP):
            next(batches)
        state = stream.state_dict()
        after = next(batches)
    open_store(uri).put(CHECKPOINT, json.dumps(state).encode())
    record = {"sources": after.sources.tolist(), "indices": after.indices.tolist(), "step": after.step}
    Path(saved).write_text(json.dumps(record))


def load(uri: str, cache: str, saved: str) -> Values:
    from adainf.storage import open_store

    _import()
    record = json.loads(Path(saved).read_text())
    connects_s = time.perf_counter()
    state = json.loads(open_store(uri).get(CHECKPOINT))  # so boto3 has its model of S3, as in any process that resumes
    began_s = time.perf_counter()
    with ours.mixed(uri, global_batch=BATCH, cache=Path(cache), rank=1, world=2) as stream:
        stream.load_state_dict(state)
        batch = next(iter(stream))
        wall_s = time.perf_counter() - began_s
    mine = slice(BATCH // 2, BATCH)
    assert batch.step == record["step"], f"step {batch.step}, not {record['step']}"
    assert batch.sources.tolist() == record["sources"][mine], "the sources differ from those without a stop"
    assert batch.indices.tolist() == record["indices"][mine], "the samples differ from those without a stop"
    return {
        "resume_ms": 1000 * wall_s,
        "resume_and_connect_ms": 1000 * (wall_s + began_s - connects_s),
        "state_bytes": len(json.dumps(state)),
    }


def open_index(uri: str) -> Values:
    _import()
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        options: dict[str, Any] = {"global_batch": BATCH, "window_shards": 32, "cache": Path(scratch)}
        with ours.opened({"generated": uri}, **options) as stream:
            opened_s = time.perf_counter()
            stream.plan(0)
            planned_s = time.perf_counter()
    assert "torch" not in sys.modules, "the stream imports torch"
    return {
        "index_open_s": opened_s - began_s,
        "index_first_batch_ids_ms": 1000 * (planned_s - opened_s),
        "index_rss_mb": peak_rss_mb(),
    }


def _import() -> None:
    for library in ours.IMPORTS:
        importlib.import_module(library)


def _samples(uri: str) -> int:
    from adainf.shards.format.folder import ShardFolder

    folders = [ShardFolder.open(f"{uri}/{source}") for source in SOURCES]
    return sum(split.images for folder in folders for split in folder.shards.splits.values())
