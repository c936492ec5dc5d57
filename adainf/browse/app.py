"""The web application: the page and its JSON API. Read-only: it accepts only GET and HEAD."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any, get_args

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from adainf.browse import images
from adainf.browse.access import Guard
from adainf.browse.catalog import Catalog, Page, SampleRef, page, page_of_rows, settle
from adainf.browse.fields import as_text, near
from adainf.browse.filters import Filters
from adainf.browse.map import ByRealism, MapReader
from adainf.browse.overview import Overview
from adainf.browse.quality import quality_of
from adainf.browse.reader import Reader, Unreadable
from adainf.browse.sources import BrowseSource, IndexedSource
from adainf.browse.statistics import label_counts, read_plan, source_weight
from adainf.browse.thumbnails import Thumbnails
from adainf.errors import AdaInfError, BadInput

MAX_SAMPLES = 240
"""Maximum number of samples per request."""
MAX_KEYS = 200_000
"""Maximum number of samples whose keys are exported."""
_WAIT_S = 1.0
"""Time that a page waits for tars without index, before it answers with what is known of them."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def application(catalog: Catalog, token: str | None, cache_bytes: int = 40_000_000) -> ASGIApp:
    """The application for one URI, behind `access.Guard` with this `token`. `cache_bytes`: of thumbnails."""
    api = _Api(catalog, cache_bytes)
    routes = [
        Route("/", _static("index.html")),
        *[Route(f"/{name}", _static(name)) for name in _files() if name != "index.html"],
        *[Route(f"/api/{name}", _endpoint(getattr(api, name))) for name in api.ENDPOINTS],
    ]
    handlers: Any = {AdaInfError: _adainf_error, HTTPException: _http_error, Exception: _server_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, token)  # outermost, so that it also covers error responses


class _Api:
    """One method per endpoint below ``/api/``; each call runs in a thread."""

    ENDPOINTS = ("catalog", "labels", "fields", "page", "keys", "sample", "image", "map", "run", "curves")

    def __init__(self, catalog: Catalog, cache_bytes: int) -> None:
        self._catalog, self._reader, self._overview = catalog, Reader(), Overview(catalog.run)
        self._thumbnails, self._map = Thumbnails(self._reader, cache_bytes), MapReader(catalog)
        self._filters = Filters()

    def catalog(self, query: QueryParams) -> Response:
        self._catalog.refresh()
        plan = read_plan(self._catalog)
        sources, mapped = [], self._map.sources()
        for name, source in self._catalog.sources.items():
            measured = quality_of(self._catalog.run, source)
            space = None if measured is None else measured.space
            weight = source_weight(name, plan)
            sources.append(_describe(source) | {"weight": weight, "quality": space, "map": name in mapped})
        return JSONResponse({"uri": self._catalog.uri, "is_run": self._catalog.is_run, "sources": sources})

    def labels(self, query: QueryParams) -> Response:
        source = self._source(query)
        counts = label_counts(source)
        return JSONResponse([{"label": label, "name": _name(source, label), "count": count} for label, count in counts.items()])

    def page(self, query: QueryParams) -> Response:
        """A 32-bit length (little endian), JSON of that length, and the images that it describes, one after another."""
        source = self._source(query)
        first, count = _number(query, "first", 0) or 0, min(_number(query, "count", 60) or 0, MAX_SAMPLES)
        found = self._select(source, query, first, count, _WAIT_S)
        return Response(_pack(source, found, self._thumbnails.of(source, found.samples)), media_type="application/octet-stream")

    def keys(self, query: QueryParams) -> Response:
        """The keys of all samples of a selection, one JSON object per line. Raises `BadInput` above `MAX_KEYS`."""
        source = self._source(query)
        settle(source)
        found = self._select(source, query, 0, MAX_KEYS)
        if found.total > MAX_KEYS:
            raise BadInput(f"the selection has {found.total:,} images; select at most {MAX_KEYS:,} to export their keys")
        lines = []
        for sample in found.samples:
            with suppress(BadInput):  # of an unreadable shard
                key = source.columns(sample.shard).keys[sample.number]
                lines.append(json.dumps({"source": source.name, "shard": sample.shard, "key": key}) + "\n")
        return Response("".join(lines), media_type="application/x-ndjson")

    def _select(self, source: BrowseSource, query: QueryParams, first: int, count: int, wait_s: float | None = None) -> Page:
        """A page of the samples that the filters of a query select."""
        rows = self._map.select(source, query)
        selection = (first, count, self._shards(source, query), _number(query, "label"))
        if Filters.is_used(query):
            reading = settle(source, wait_s)
            if reading:
                return Page([], 0, False, reading)
            selected = self._filters.mask(source, query, _number(query, "shard"))
            rows = np.flatnonzero(selected) if rows is None else rows[selected[rows]]
        return page(source, *selection, wait_s) if rows is None else page_of_rows(source, rows, *selection)

    def fields(self, query: QueryParams) -> Response:
        source = self._source(query)
        settle(source)
        return JSONResponse([one._asdict() for one in self._filters.histograms(source, _number(query, "shard"))])

    def sample(self, query: QueryParams) -> Response:
        source = self._source(query)
        ref = _sample_ref(query)
        columns = source.columns(ref.shard)
        if ref.number >= len(columns):
            raise BadInput(f"shard {ref.shard} of {source.name} has no sample {ref.number}; choose one below {len(columns)}")
        label = int(columns.labels[ref.number])
        described: dict[str, Any] = {
            "key": columns.keys[ref.number],
            "source": source.name,
            "uri": source.locate(ref.shard),
            "shard": ref.shard,
            "number": ref.number,
            "of": len(columns),
            "label": None if label < 0 else label,
            "class": _name(source, label),
            "text": columns.texts[ref.number],
            "fields": [[name, as_text(value)] for name, value in near(source, ref).items()],
            "offset_bytes": int(columns.offsets[ref.number]),
            "size_bytes": int(columns.sizes_bytes[ref.number]),
            "crc32": f"{columns.crc32s[ref.number]:08x}",
            "previous": _neighbour(source, ref, -1),
            "next": _neighbour(source, ref, 1),
        }
        if measured := quality_of(self._catalog.run, source):
            distance = measured.distances[ref.shard]
            described["quality"] = f"Fréchet distance {distance:.4g} of its shard (features: {measured.space})"
        try:
            described |= self._map.nearest(source, ref)
        except BadInput as error:
            described["map_error"] = str(error)
        try:
            kind, width, height = images.read_header(self._reader.read_one(source, ref))
            described |= {"format": kind, "width_px": width, "height_px": height}
        except (ValueError, AdaInfError) as error:
            described["error"] = str(error)
        return JSONResponse(described)

    def image(self, query: QueryParams) -> Response:
        source = self._source(query)
        try:
            image = images.full_size(self._reader.read_one(source, _sample_ref(query)))
        except ValueError as error:
            raise BadInput(f"the image cannot be shown: {error}") from None
        return Response(image.data, media_type=image.media_type)

    def map(self, query: QueryParams) -> Response:
        """Number of real and of generated points, 32 bits each, then x and y of all points, float32 (all little endian)."""
        found = self._map.read(query.get("of"))
        points = [xy.astype("<f4").tobytes() for xy in (found.real_xy, found.generated_xy)]
        counts = struct.pack("<II", len(found.real_xy), len(found.generated_xy))
        return Response(b"".join([counts, *points]), media_type="application/octet-stream")

    def run(self, query: QueryParams) -> Response:
        return JSONResponse(self._overview.read())

    def curves(self, query: QueryParams) -> Response:
        return JSONResponse(self._overview.curves())

    def _shards(self, source: BrowseSource, query: QueryParams) -> list[int] | None:
        """The shards that a query selects: one, or several by quality; None selects all."""
        shard, order = _number(query, "shard"), query.get("quality")
        if shard is not None or not order or order in get_args(ByRealism):
            return None if shard is None else [shard]
        measured = quality_of(self._catalog.run, source)
        if measured is None:
            raise BadInput(
                f"the quality of {source.name} has not been measured; run `adainf measure RECIPE`, or remove quality"
            )
        return measured.shards(order)

    def _source(self, query: QueryParams) -> BrowseSource:
        return self._catalog.source(query.get("source"))


def _files() -> dict[str, bytes]:
    """The static files of the page, by name. Request paths are looked up here, never on disk."""
    return {file.name: file.read_bytes() for file in files("adainf.browse").joinpath("static").iterdir() if file.is_file()}


def _static(name: str) -> Callable[[Request], Response]:
    content = _files()[name]
    media_type = _TYPES[name[name.rindex(".") :]]
    return lambda request: Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _endpoint(method: Callable[[QueryParams], Response]) -> Callable[[Request], Response]:
    return lambda request: method(request.query_params)


def _describe(source: BrowseSource) -> dict[str, Any]:
    known = source.known
    described: dict[str, Any] = {
        "name": source.name,
        "uri": source.run.uri,
        "shards": source.shards,
        "samples": sum(known),
        "complete": len(known) == source.shards,
        "bytes": sum(source.tar_sizes_bytes),
        "digest": source.digest,
        "labelled": source.labelled,
    }
    if isinstance(source, IndexedSource):
        described |= {
            "channel_means": source.split.channel_means,
            "channel_stds": source.split.channel_stds,
        }
    return described


def _pack(source: BrowseSource, found: Page, results: list[images.EncodedImage | Unreadable]) -> bytes:
    samples: list[dict[str, Any]] = []
    data: list[bytes] = []
    for ref, image in zip(found.samples, results, strict=True):
        described: dict[str, Any] = {"shard": ref.shard, "number": ref.number}
        with suppress(AdaInfError, IndexError):  # of an unreadable shard, or one that has been replaced: the reason is shown
            columns = source.columns(ref.shard)
            described |= {"key": columns.keys[ref.number], "label": int(columns.labels[ref.number])}
        if isinstance(image, Unreadable):
            described["error"] = image.reason
        else:
            described |= {"type": image.media_type, "bytes": len(image.data)}
            data.append(image.data)
        samples.append(described)
    known = source.known
    page = {"total": found.total, "complete": found.complete, "reading": found.reading, "samples": samples}
    source_known = {"samples": sum(known), "complete": len(known) == source.shards, "labelled": source.labelled}
    header = json.dumps(page | {"source": source_known}).encode()
    return b"".join([struct.pack("<I", len(header)), header, *data])


def _name(source: BrowseSource, label: int) -> str | None:
    return source.classes[label] if 0 <= label < len(source.classes) else None


def _neighbour(source: BrowseSource, ref: SampleRef, step: int) -> list[int] | None:
    number, shard = ref.number + step, ref.shard
    if number < 0:
        shard -= 1
        number = (source.counts[shard] or 0) - 1 if shard >= 0 else -1
    elif number >= (source.counts[shard] or 0):
        shard, number = shard + 1, 0
    return [shard, number] if 0 <= shard < source.shards and number >= 0 else None


def _sample_ref(query: QueryParams) -> SampleRef:
    return SampleRef(_number(query, "shard", 0) or 0, _number(query, "number", 0) or 0)


def _number(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """An integer parameter. Raises `BadInput` if it is not an integer, negative, or has more than 12 digits."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise BadInput(f"invalid {name} {text[:40]!r}: expected an integer of at most 12 digits")
    return int(text)


async def _adainf_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, BadInput) else 502)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal server error; see the log of the server"}, 500)
