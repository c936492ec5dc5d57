"""The images of a page, as thumbnails: read, decoded and cached for all viewers."""

from __future__ import annotations

from collections.abc import Sequence

from adainf.browse.catalog import SampleRef
from adainf.browse.images import EncodedImage, thumbnail
from adainf.browse.lru import LruCache
from adainf.browse.reader import Reader, Unreadable
from adainf.browse.sources import BrowseSource

_ENTRY_BYTES = 300
"""Approximate memory of an entry of the cache besides its data."""


class Thumbnails:
    """Thread-safe. Encoded images are released as soon as their thumbnail exists."""

    def __init__(self, reader: Reader, cache_bytes: int) -> None:
        self._reader = reader
        self._cache: LruCache[EncodedImage] = LruCache(cache_bytes)

    def of(self, source: BrowseSource, samples: Sequence[SampleRef]) -> list[EncodedImage | Unreadable]:
        """One thumbnail per sample, or the reason why there is none."""
        found: dict[SampleRef, EncodedImage | Unreadable] = {}
        for sample in samples:
            cached = self._cache.get((source.name, source.digest, sample))
            if cached is not None:
                found[sample] = cached
        missing = [sample for sample in samples if sample not in found]
        for sample, made in zip(missing, self._reader.each(source, missing, thumbnail), strict=True):
            found[sample] = made
            if isinstance(made, EncodedImage):
                self._cache.put((source.name, source.digest, sample), made, len(made.data) + _ENTRY_BYTES)
        return [found[sample] for sample in samples]
