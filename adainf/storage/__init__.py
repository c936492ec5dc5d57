"""Objects behind one small protocol: a local folder or S3."""

from adainf.errors import BadInput
from adainf.storage.base import NotFound, ObjectInfo, PreconditionFailed, Store

__all__ = ["NotFound", "ObjectInfo", "PreconditionFailed", "Store", "open_store"]


def open_store(uri: str) -> Store:
    """The store at `uri`: ``s3://bucket/prefix`` or a local folder (made by the first put).

    Raises `BadInput` for an address of another kind, a bucket without a name, or a file where the folder should be.
    """
    if uri.startswith("s3://"):
        from adainf.storage.s3.store import S3Store  # boto3 takes 0.3 s to import; local runs do not need it

        return S3Store(uri)
    if "://" in uri:
        raise BadInput(f"{uri.split('://')[0]}:// is no kind of store; use s3://bucket/prefix or a folder as --run")
    from adainf.storage.local import LocalStore

    return LocalStore(uri)
