"""Checks of a run's store: operations, clock skew, and whether the decoded images fit into this machine's cache."""

from __future__ import annotations

import secrets
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from adainf.doctor.check import Check, failed
from adainf.errors import AdaInfError
from adainf.pipeline.artifacts import Run
from adainf.recipe import Recipe
from adainf.storage import PreconditionFailed, Store, open_store

if TYPE_CHECKING:
    from adainf.shards.format.folder import ShardFolder

_DECODED_IMAGES = 64
SKEW_WARN_S, SKEW_FAIL_S = 60, 900
"""S3 rejects requests whose clock skew exceeds 15 minutes."""


def operations(uri: str) -> Iterator[Check]:
    """Put, get, conditional put and delete of one object below ``logs/doctor/``."""
    key = f"logs/doctor/{secrets.token_hex(8)}"
    try:
        opened = open_store(uri)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield _try_operations(opened, uri, key)
    except AdaInfError as error:
        yield failed("store", error)
        return
    for warning in caught:
        yield Check(
            "conditional writes", "warn", str(warning.message), "ensure that one process at a time writes each artifact"
        )


def _try_operations(opened: Store, uri: str, key: str) -> Check:
    try:
        first = opened.put_if_absent(key, b"first")
        with suppress(PreconditionFailed):
            opened.put_if_absent(key, b"second")
            return Check("store", "fail", f"{uri} ignores If-None-Match", "use a store that supports If-None-Match")
        second = opened.put_if_match(key, b"second", first.etag)
        with suppress(PreconditionFailed):
            opened.put_if_match(key, b"third", first.etag)
            return Check("store", "fail", f"{uri} ignores If-Match", "use a store that supports If-Match")
        if opened.get(key, etag=second.etag) != b"second":
            return Check("store", "fail", f"{uri} returns other bytes than were put", "check proxies and caches in between")
        return Check("store", "ok", f"{uri}: put, get, conditional put, delete")
    finally:
        with suppress(AdaInfError):
            opened.delete(key)


def clock(uri: str) -> Iterator[Check]:
    """The skew between this machine's clock and that of an S3 store."""
    if not uri.startswith("s3://"):
        return
    try:
        date = _date(uri)
    except AdaInfError as error:
        yield failed("clock", error)
        return
    if date is None:
        yield Check("clock", "warn", "the store returned no time", "fix the check `store` first")
        return
    skew_s = (datetime.now(UTC) - date).total_seconds()
    detail = f"{skew_s:+.0f} s from the store's clock"
    if abs(skew_s) < SKEW_WARN_S:
        yield Check("clock", "ok", detail)
    else:
        fix = "synchronize this node's clock by NTP; S3 rejects requests with more than 15 minutes of skew"
        yield Check("clock", "warn" if abs(skew_s) < SKEW_FAIL_S else "fail", detail, fix)


def _date(uri: str) -> datetime | None:
    from botocore.exceptions import BotoCoreError, ClientError

    from adainf.storage.s3.client import Limits, S3Client

    client = S3Client(uri, Limits(attempts=1)).client
    try:
        response = client.head_bucket(Bucket=uri.removeprefix("s3://").split("/")[0])
    except ClientError as error:  # an error response has the date, too
        response = error.response
    except BotoCoreError:
        return None
    stamp = response["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(stamp) if stamp else None


def cache(uri: str, recipe: Recipe) -> Iterator[Check]:
    """What pretraining caches on each node, its disk space, and the speed of decoding; skipped before `ingest`."""
    if recipe.pretrain.stream.window_shards is not None or find_spec("numpy") is None:  # the controller's image reads no images
        return
    from adainf.shards.format.folder import ShardFolder
    from adainf.shards.loader.cache import default_folder
    from adainf.shards.loader.source import decoded_bytes, encoded_bytes, mode_of

    try:
        run, folder = Run(uri), default_folder()
        manifest = run.find("real")
    except AdaInfError:
        return  # the check `store` reports it
    if manifest is None:
        return
    real = ShardFolder.of(run, "real", manifest)
    mode, (height_px, width_px) = mode_of(real, "train", None), real.shards.image_size
    real_bytes = encoded_bytes(real.split("train")) if mode == "encoded" else decoded_bytes(real, "train", None)
    generated = sum(source.generate.images or 0 for source in recipe.sources.values()) if recipe.uses_generated else 0
    required_bytes = real_bytes + generated * height_px * width_px * 3
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    detail = (
        f"{folder}: {required_bytes / 2**30:.2f} GiB of images, {free_bytes / 2**30:.1f} GiB free; real images are cached "
        f"{mode} and decoded at {decoding_rate(real):,.0f} images/s per core"
    )
    fits = required_bytes <= free_bytes
    fix = "" if fits else "set ADAINF_CACHE to a larger disk, or pretrain.stream.window_shards"
    yield Check("cache", "ok" if fits else "fail", detail, fix)


def decoding_rate(folder: ShardFolder) -> float:
    """Images per CPU second: up to 64 images of the first training shard, decoded to the size of the set."""
    from adainf.shards.format.decode import fitted
    from adainf.shards.format.png import decode_image
    from adainf.shards.format.reading import decoding

    index = folder.index(folder.split("train").shard(0))
    reading, resize_px = decoding(folder.shards, None)
    places = list(zip(index.image_offsets, index.image_sizes_bytes, strict=True))[:_DECODED_IMAGES]
    first = places[0][0]
    data = folder.run.store.get_range(folder.key(index.tar.key), first, sum(places[-1]) - first)
    used_s = 0.0
    for offset, size in places:
        image = data[offset - first : offset - first + size]
        began_s = time.thread_time()
        with suppress(ValueError):  # reported by `adainf shards verify`
            fitted(decode_image(image, verified=True, reading=reading), None, resize_px)
        used_s += time.thread_time() - began_s
    return len(places) / max(used_s, 1e-6)
