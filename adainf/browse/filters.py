"""Filters by text and by the fields of ``.json``: which rows of a source a query selects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import QueryParams

from adainf.browse.fields import MAX_VALUES, VALUE_BYTES, Histogram, Table
from adainf.browse.lru import LruCache
from adainf.browse.sources import BrowseSource
from adainf.errors import BadInput

MAX_QUERY = 200
_CACHE_BYTES = 32_000_000

Mask = NDArray[np.bool_]


class Filters:
    """Caches what the last queries selected. Thread-safe."""

    def __init__(self) -> None:
        self._masks: LruCache[Mask] = LruCache(_CACHE_BYTES)
        self._tables: LruCache[Table] = LruCache(MAX_VALUES * VALUE_BYTES)

    @staticmethod
    def is_used(query: QueryParams) -> bool:
        """Whether the query has such a filter."""
        return bool(query.get("q") or query.getlist("where"))

    def mask(self, source: BrowseSource, query: QueryParams, shard: int | None) -> Mask:
        """rows of the known shards: whether the query selects them. Raises `BadInput` for a malformed query.

        ``q``: a text that the key or the caption contains, in any case. ``where``: a condition on a field as JSON (see
        `Table.select`), any number of times; if `shard` is given, only its fields are read.
        """
        known = source.known
        selected = np.ones(sum(known), bool)
        if text := query.get("q", ""):
            if len(text) > MAX_QUERY:
                raise BadInput(f"the search text has {len(text):,} characters; use at most {MAX_QUERY}")
            selected &= self._search(source, text)
        for condition in query.getlist("where"):
            selected &= self._where(source, condition, shard)
        starts = np.cumsum([0, *known])
        for unreadable in source.problems:  # shown by every filter, as its samples are not known
            if unreadable < len(known):
                selected[starts[unreadable]] = True
        return selected

    def histograms(self, source: BrowseSource, shard: int | None) -> list[Histogram]:
        """The histograms of all fields of the known shards, or of one shard. Raises as `Table` does."""
        return self._table(source, shard).histograms()

    def _search(self, source: BrowseSource, text: str) -> Mask:
        key = (source.name, source.digest, sum(source.known), text)
        found = self._masks.get(key)
        if found is None:
            wanted = text.casefold()
            parts = [np.zeros(0, bool)]
            for shard, count in enumerate(source.known):
                try:
                    columns = source.columns(shard)
                except BadInput:
                    parts.append(np.arange(count) == 0)  # the first sample of an unreadable shard
                    continue
                pairs = zip(columns.keys, columns.texts, strict=True)
                parts.append(np.array([wanted in key.casefold() or wanted in (of or "").casefold() for key, of in pairs], bool))
            found = np.concatenate(parts)
            self._masks.put(key, found, found.nbytes)
        return found

    def _where(self, source: BrowseSource, text: str, shard: int | None) -> Mask:
        key = (source.name, source.digest, sum(source.known), shard, text)
        found = self._masks.get(key)
        if found is None:
            found = self._read_where(source, text, shard)
            self._masks.put(key, found, found.nbytes)
        return found

    def _read_where(self, source: BrowseSource, text: str, shard: int | None) -> Mask:
        try:
            condition: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise BadInput(f"invalid where {text[:40]!r}: expected [name, text] or [name, low, high] as JSON") from None
        chosen = self._table(source, shard).select(condition)
        if shard is None:
            return chosen
        selected = np.zeros(sum(source.known), bool)
        start = sum(source.known[:shard])
        selected[start : start + len(chosen)] = chosen
        return selected

    def _table(self, source: BrowseSource, shard: int | None) -> Table:
        if shard is not None:
            source.count(shard)  # raises if there is no such shard
        shards = range(len(source.known)) if shard is None else range(shard, shard + 1)
        key = (source.name, source.digest, shards)
        found = self._tables.get(key)
        if found is None:
            found = Table(source, shards)
            self._tables.put(key, found, VALUE_BYTES * found.values)
        return found
