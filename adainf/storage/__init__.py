"""Objects behind one small protocol: a local folder or S3."""

from adainf.storage.store import NotFound, ObjectInfo, PreconditionFailed, Store, open_store

__all__ = ["NotFound", "ObjectInfo", "PreconditionFailed", "Store", "open_store"]
