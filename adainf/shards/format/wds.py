"""Plain webdataset on ``s3://``: ``register()``, then ``webdataset.WebDataset("s3://bucket/real/train-{000000..000004}.tar")``.

webdataset has no handler for s3:// and advises a shell pipe; ours resumes what breaks off, and runs no shell.
"""

from __future__ import annotations

from typing import IO, Any

from adainf.storage import open_store


def register() -> None:
    """Let webdataset read ``s3://`` in this process (and those it forks)."""
    import webdataset

    webdataset.gopen_schemes["s3"] = _open


def _open(url: str, mode: str = "rb", bufsize: int = 8192, **options: Any) -> IO[bytes]:
    if mode != "rb":
        raise ValueError(f"{url}: shards on S3 are written by their own writers; open it for reading")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    folder, slash, name = key.rpartition("/")
    return open_store(f"s3://{bucket}{slash}{folder}").open(name)
