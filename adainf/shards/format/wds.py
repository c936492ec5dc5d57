"""webdataset on ``s3://``: ``register()``, then ``webdataset.WebDataset("s3://bucket/real/train-{000000..000004}.tar")``.

webdataset has no handler for s3:// and recommends a shell pipe. This one resumes interrupted downloads and needs no shell.
"""

from __future__ import annotations

from typing import IO, Any

from adainf.storage import open_store


def register() -> None:
    """Register ``s3://`` with webdataset in this process and those it forks."""
    import webdataset

    webdataset.gopen_schemes["s3"] = _open


def _open(url: str, mode: str = "rb", bufsize: int = 8192, **options: Any) -> IO[bytes]:
    if mode != "rb":
        raise ValueError(f"{url}: mode {mode!r} is not supported; open it with mode 'rb' (write shards with `SplitWriter`)")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    folder, slash, name = key.rpartition("/")
    return open_store(f"s3://{bucket}{slash}{folder}").open(name)
