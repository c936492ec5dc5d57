"""What a run's store lets us do, how far its clock is from ours, and whether its decoded images fit on this machine."""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec

from adainf.doctor.finding import Finding, failed
from adainf.errors import AdaInfError
from adainf.pipeline.artifacts import Run
from adainf.recipe import Recipe
from adainf.storage import PreconditionFailed, Store, open_store

SKEW_WARN_S, SKEW_FAIL_S = 60, 900
"""S3 refuses requests that are a quarter of an hour off."""


def store(uri: str) -> Iterator[Finding]:
    """Put, get, put on condition and delete one object below ``logs/doctor/``."""
    key = f"logs/doctor/{secrets.token_hex(8)}"
    try:
        opened = open_store(uri)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield _try(opened, uri, key)
    except AdaInfError as error:
        yield failed("store", error)
        return
    for warning in told:
        yield Finding("conditional writes", "warn", str(warning.message), "let one process at a time write each artifact")


def _try(opened: Store, uri: str, key: str) -> Finding:
    try:
        first = opened.put_if_absent(key, b"first")
        with suppress(PreconditionFailed):
            opened.put_if_absent(key, b"second")
            return Finding("store", "fail", f"{uri} overwrites what it was to leave alone", "use a store with If-None-Match")
        second = opened.put_if_match(key, b"second", first.etag)
        with suppress(PreconditionFailed):
            opened.put_if_match(key, b"third", first.etag)
            return Finding("store", "fail", f"{uri} replaces what has changed meanwhile", "use a store with If-Match")
        if opened.get(key, etag=second.etag) != b"second":
            return Finding("store", "fail", f"{uri} gives other bytes than were put", "look at what lies between it and here")
        return Finding("store", "ok", f"{uri}: put, get, put on condition, delete")
    finally:
        with suppress(AdaInfError):
            opened.delete(key)


def clock(uri: str) -> Iterator[Finding]:
    """Our clock beside that of a store on S3."""
    if not uri.startswith("s3://"):
        return
    try:
        date = _date(uri)
    except AdaInfError as error:
        yield failed("clock", error)
        return
    if date is None:
        yield Finding("clock", "warn", "the store did not answer with its time", "mend the store's line first")
        return
    skew_s = (datetime.now(UTC) - date).total_seconds()
    found = f"{skew_s:+.0f} s beside the store's"
    if abs(skew_s) < SKEW_WARN_S:
        yield Finding("clock", "ok", found)
    else:
        mend = "let this node keep its time by NTP; S3 refuses requests that are 15 minutes off"
        yield Finding("clock", "warn" if abs(skew_s) < SKEW_FAIL_S else "fail", found, mend)


def _date(uri: str) -> datetime | None:
    from botocore.exceptions import BotoCoreError, ClientError

    from adainf.storage.s3.client import Limits, S3Client

    client = S3Client(uri, Limits(attempts=1)).client
    try:
        answer = client.head_bucket(Bucket=uri.removeprefix("s3://").split("/")[0])
    except ClientError as error:  # a refusal has its time, too
        answer = error.response
    except BotoCoreError:
        return None
    stamp = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(stamp) if stamp else None


def cache(uri: str, recipe: Recipe) -> Iterator[Finding]:
    """Room for the decoded images that pretraining keeps on each node, once their size is known."""
    if recipe.pretrain.stream.window_shards is not None or find_spec("numpy") is None:  # the controller's image reads none
        return
    from adainf.shards.format.manifest import ShardSet
    from adainf.shards.loader.cache import default_folder

    try:
        folder, manifest = default_folder(), Run(uri).find("real")
    except AdaInfError:
        return  # the store's line says it
    if manifest is None:
        return
    shards = manifest.content_as(ShardSet)
    generated = sum(source.generate.images or 0 for source in recipe.sources.values()) if recipe.uses_generated else 0
    height_px, width_px = shards.image_size
    wanted_bytes = (shards.splits["train"].images + generated) * height_px * width_px * 3
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(there).free
    found = f"{folder}: {wanted_bytes / 2**30:.2f} GiB of images, {free_bytes / 2**30:.1f} GiB free"
    fits = wanted_bytes <= free_bytes
    mend = "" if fits else "set ADAINF_CACHE to a larger disk, or pretrain.stream.window_shards"
    yield Finding("cache", "ok" if fits else "fail", found, mend)
