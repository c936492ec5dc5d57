"""Copies of objects between stores: hard links between folders on one disk, else their bytes."""

from __future__ import annotations

from adainf.storage.base import Store
from adainf.storage.local import LocalStore


def copy_object(source: Store, target: Store, key: str) -> None:
    """Put the object `key` of `source` under the same key into `target`. Raises `NotFound`.

    An object is never changed in place, so a hard link to it is a copy that takes no space.
    """
    if isinstance(source, LocalStore) and isinstance(target, LocalStore) and target.link(key, source):
        return
    target.put(key, source.get(key))
