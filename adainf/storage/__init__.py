"""Object stores behind one protocol: a local folder or S3."""

from pathlib import Path

from adainf.errors import BadInput
from adainf.storage.base import NotFound, ObjectInfo, PreconditionFailed, Store

__all__ = ["NotFound", "ObjectInfo", "PreconditionFailed", "Store", "open_store"]


def open_store(uri: str) -> Store:
    """The store at `uri`: ``s3://bucket/prefix`` or a local folder, which the first put creates.

    Raises `BadInput` for another URI scheme, an empty bucket name, or a file in place of the folder.
    """
    if uri.startswith("s3://"):
        from adainf.storage.s3.store import S3Store  # boto3 takes 0.3 s to import; local runs do not need it

        return S3Store(uri)
    if "://" in uri:
        raise BadInput(f"{uri}: {uri.split('://')[0]}:// is not supported; use s3://bucket/prefix or a folder")
    from adainf.storage.local import LocalStore

    # A shell does not expand the ~ of --run=~/runs.
    return LocalStore(str(Path(uri).expanduser()) if uri.startswith("~") else uri)
