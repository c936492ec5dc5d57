"""The ``.json`` of samples: shown for one sample, and as columns of a source for filters and histograms."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.browse.catalog import SampleRef
from adainf.browse.sources import BrowseSource
from adainf.errors import AdaInfError, BadInput
from adainf.shards.format.fields import printable
from adainf.shards.format.samples import Found, SampleScan
from adainf.shards.format.scan import Forward, Member

MAX_BYTES = 4 * 2**30
"""Of tars that are read for their fields: the index has none, so all of them are read once."""
MAX_VALUES = 4_000_000
"""Of a `Table`: fields times samples."""
VALUE_BYTES = 40
"""Approximate memory of a value in a `Table`: equal values are stored once."""
_MAX_NEAR_BYTES = 2**20
_MAX_FIELDS = 64
_MAX_TEXT = 200
_BINS = 20
_FEW = 12
"""Numbers with at most so many distinct values are shown as categories."""
_MANY = 500
"""A field of texts with more distinct values has no histogram."""
_SHOWN = 30

Values = Mapping[str, Any]
"""Name → a text, a number, a bool or None. Objects are flattened: "a.b"."""


def parse(data: bytes) -> dict[str, Any]:
    """The values of a JSON object; empty for anything else. Lists are texts."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return dict(_flat(found, "")) if isinstance(found, dict) else {}


def _flat(found: dict[str, Any], prefix: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in list(found.items())[:_MAX_FIELDS]:
        name = prefix + printable(str(key))[:_MAX_TEXT]
        if isinstance(value, dict) and depth < 3:
            yield from _flat(value, f"{name}.", depth + 1)
        elif isinstance(value, str):
            yield name, printable(value)[:_MAX_TEXT]
        elif isinstance(value, list | dict):
            yield name, json.dumps(value)[:_MAX_TEXT]
        else:
            yield name, value


def as_text(value: Any) -> str:
    """A value as page and terminal show it, and as conditions name it."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1024:
        return "a number of more than 300 digits"
    return value if isinstance(value, str) else json.dumps(value)


def near(source: BrowseSource, sample: SampleRef) -> dict[str, Any]:
    """The values of one sample, from the bytes around its image: the files of a sample are adjacent. Empty without any.

    Reads at most `_MAX_NEAR_BYTES` on each side.
    """
    columns = source.columns(sample.shard)
    ends = columns.offsets + columns.sizes_bytes
    at, end = int(columns.offsets[sample.number]), int(ends[sample.number])
    before = -(-int(ends[columns.offsets < at].max(initial=0)) // 512) * 512
    after = int(columns.offsets[columns.offsets > at].min(initial=source.tar_sizes_bytes[sample.shard]))
    for first, last in ((before, at), (-(-end // 512) * 512, after)):
        if not 0 < last - first <= _MAX_NEAR_BYTES:
            continue
        try:
            data = source.run.store.get_range(source.tar_keys[sample.shard], first, last - first)
        except (AdaInfError, ValueError):
            continue
        for name, content in _members(data):
            path = PurePosixPath(name)
            key, _, field = path.name.partition(".")
            if field.lower().endswith("json") and printable(str(path.with_name(key))) == columns.keys[sample.number]:
                return parse(content)
    return {}


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in a part of a tar, up to the first that is incomplete or corrupt."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as archive:
            for member in archive:
                content = data[member.offset_data : member.offset_data + member.size]
                if member.isreg() and len(content) == member.size:
                    yield member.name, content
    except (tarfile.TarError, ValueError, OverflowError):
        return


class _JsonScan(SampleScan):
    """Keeps the JSON of each sample."""

    values: dict[str, Any]

    def _sample(self, key: str, group: dict[str, Member], contents: dict[str, bytes], plan: Any) -> Found:
        self.values = parse(contents.get(plan.json, b"")) if plan.json else {}
        return super()._sample(key, group, contents, plan)


class Histogram(NamedTuple):
    """Counts of a field: of each category, or of ranges of numbers (low ≤ value < high)."""

    name: str
    kind: str
    """`category`, `number`, or `text` for a field with too many distinct values."""
    bars: list[tuple[list[Any], str, int]]
    """The condition that selects the samples of a bar (see `Table.select`), its label and its count."""
    others: int
    """Samples with a value that no bar counts."""


class Table:
    """The fields of all samples of a source, or of one of its shards."""

    def __init__(self, source: BrowseSource, shards: range) -> None:
        """Raises `BadInput` if the tars are too large to be read for their fields, or have more than `MAX_VALUES`."""
        size = sum(source.tar_sizes_bytes[shard] for shard in shards)
        if size > MAX_BYTES:
            raise BadInput(
                f"{source.name}: its tars have {size:,} bytes, too many to read their .json for a filter; choose one shard"
            )
        self._columns: dict[str, list[Any]] = {}
        self._shared: dict[tuple[type, Any], Any] = {}
        self.samples = self.values = 0
        for shard in shards:
            self._add(source, shard)
            if self.values > MAX_VALUES:
                raise BadInput(f"{source.name}: its .json have more than {MAX_VALUES:,} values; choose one shard")

    def _add(self, source: BrowseSource, shard: int) -> None:
        by_key: dict[str, dict[str, Any]] = {}
        try:
            keys = source.columns(shard).keys
        except BadInput:
            self.samples += source.known[shard]
            return
        # Of a corrupt tar, the fields in front of the corruption are known.
        with suppress(AdaInfError, ValueError), source.run.store.open(source.tar_keys[shard]) as file:
            scan = _JsonScan(Forward(file, source.tar_sizes_bytes[shard]))
            for found in scan:
                if found.sample is not None and scan.values:
                    by_key[found.sample.key] = scan.values
        for row, key in enumerate(keys, self.samples):
            for name, value in by_key.get(key, {}).items():
                if name in self._columns or len(self._columns) < _MAX_FIELDS:
                    column = self._columns.setdefault(name, [])
                    column.extend([None] * (row - len(column)))
                    column.append(self._shared.setdefault((type(value), value), value))
                    self.values += 1
        self.samples += len(keys)

    def histograms(self) -> list[Histogram]:
        """One for each field, in the order in which the fields appear."""
        return [_histogram(name, column) for name, column in self._columns.items()]

    def select(self, condition: Any) -> NDArray[np.bool_]:
        """samples: which fulfil a condition, ``[name, text]`` or ``[name, low, high]``. Raises `BadInput` for any other."""
        match condition:
            case [str(name), str(text)]:
                chosen = [one is not None and as_text(one) == text for one in self._of(name)]
            case [str(name), int() | float() as low, int() | float() as high]:
                numbers = [_number(one) for one in self._of(name)]
                chosen = [one is not None and low <= one < high for one in numbers]
            case _:
                raise BadInput(f"invalid where {str(condition)[:40]!r}: expected [name, text] or [name, low, high]")
        return np.array(chosen + [False] * (self.samples - len(chosen)), bool)

    def _of(self, name: str) -> list[Any]:
        return self._columns.get(name, [])


def _number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _histogram(name: str, column: list[Any]) -> Histogram:
    present = [value for value in column if value is not None]
    numbers = np.array([number for value in present if (number := _number(value)) is not None])
    if len(numbers) == len(present) and len(np.unique(numbers)) > _FEW:
        return _of_numbers(name, numbers)
    counts = Counter(map(as_text, present))
    if len(counts) > _MANY:
        return Histogram(name, "text", [], len(present))
    order = sorted(counts, key=lambda text: (-counts[text], text))[:_SHOWN]
    if len(numbers) == len(present):
        values = {as_text(value): _number(value) or 0.0 for value in present}
        order.sort(key=lambda text: values[text])
    bars: list[tuple[list[Any], str, int]] = [([name, text], text, counts[text]) for text in order]
    return Histogram(name, "category", bars, len(present) - sum(counts[text] for text in order))


def _of_numbers(name: str, numbers: NDArray[np.float64]) -> Histogram:
    edges = np.linspace(numbers.min() / 2, numbers.max() / 2, _BINS + 1) * 2  # halves: their difference does not overflow
    edges[0], edges[-1] = numbers.min(), np.nextafter(numbers.max(), np.inf)
    bins = np.clip(np.searchsorted(edges, numbers, "right") - 1, 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS).tolist()
    bars = [
        ([name, low, min(high, np.finfo(float).max)], f"{low:.4g} to {high:.4g}", count)
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
    ]
    return Histogram(name, "number", bars, 0)
