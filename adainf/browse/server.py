"""The page and what it asks for, over HTTP. Nothing can be changed by it: GET and HEAD are all that it knows."""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adainf.browse import pictures
from adainf.browse.catalog import Catalog, Page, Place, page, page_of
from adainf.browse.facts import label_counts, plan_of, weight_in
from adainf.browse.map import ByRealism, MapReader
from adainf.browse.overview import Overview
from adainf.browse.quality import quality_of
from adainf.browse.reading import Encoded, Problem, Reader
from adainf.browse.sources import IndexedSource, Source
from adainf.errors import AdaInfError, BadInput

MOST_SAMPLES = 240
"""Of one request."""
COOKIE = "adainf"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def application(catalog: Catalog, token: str | None, cache_bytes: int = 64_000_000) -> ASGIApp:
    """The server of one URI. With a `token` nothing is answered without it; without one, only to who calls this machine by one
    of its own names (else any web page could let its name lead here, and read)."""
    viewer = _Viewer(catalog, cache_bytes)
    routes = [
        Route("/", _static("index.html")),
        *[Route(f"/{name}", _static(name)) for name in _files() if name != "index.html"],
        *[Route(f"/api/{name}", _answers(getattr(viewer, name))) for name in viewer.ANSWERS],
    ]
    handlers: Any = {AdaInfError: _problem, HTTPException: _refused, Exception: _failed}
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), token)  # around the answers to failures, too


class _Viewer:
    """One method an address below ``/api/``; each is called in a thread of its own."""

    ANSWERS = ("catalog", "labels", "page", "sample", "image", "map", "run", "curves")

    def __init__(self, catalog: Catalog, cache_bytes: int) -> None:
        self._catalog, self._reader, self._overview = catalog, Reader(cache_bytes), Overview(catalog.run)
        self._map = MapReader(catalog)

    def catalog(self, query: QueryParams) -> Response:
        self._catalog.refresh()
        plan = plan_of(self._catalog)
        sources, mapped = [], self._map.sources()
        for name, source in self._catalog.sources.items():
            measured = quality_of(self._catalog.run, source)
            space = None if measured is None else measured.space
            weight = weight_in(name, plan)
            sources.append(_describe(source) | {"weight": weight, "quality": space, "map": name in mapped})
        return JSONResponse({"uri": self._catalog.uri, "is_run": self._catalog.is_run, "sources": sources})

    def labels(self, query: QueryParams) -> Response:
        source = self._source(query)
        counts = label_counts(source)
        return JSONResponse([{"label": label, "name": _name(source, label), "count": count} for label, count in counts.items()])

    def page(self, query: QueryParams) -> Response:
        """A 32-bit length (little endian), JSON of that length, and the pictures that it describes, one after another."""
        source = self._source(query)
        first, count = _number(query, "first", 0) or 0, min(_number(query, "count", 60) or 0, MOST_SAMPLES)
        shards, label, rows = self._shards(source, query), _number(query, "label"), self._map.chosen(source, query)
        wanted = (first, count, shards, label)
        found = page(source, *wanted) if rows is None else page_of(source, rows, *wanted)
        return Response(_packed(source, found, self._reader.read(source, found.places)), media_type="application/octet-stream")

    def sample(self, query: QueryParams) -> Response:
        source = self._source(query)
        place = _place(query)
        columns = source.columns(place.shard)
        if place.number >= len(columns):
            raise BadInput(f"shard {place.shard} of {source.name} has {len(columns)} samples, no number {place.number}")
        label = int(columns.labels[place.number])
        said: dict[str, Any] = {
            "key": columns.keys[place.number],
            "source": source.name,
            "uri": source.locate(place.shard),
            "shard": place.shard,
            "number": place.number,
            "of": len(columns),
            "label": None if label < 0 else label,
            "class": _name(source, label),
            "text": columns.texts[place.number],
            "offset_bytes": int(columns.offsets[place.number]),
            "size_bytes": int(columns.sizes_bytes[place.number]),
            "crc32": f"{columns.crc32s[place.number]:08x}",
            "previous": _beside(source, place, -1),
            "next": _beside(source, place, 1),
        }
        if measured := quality_of(self._catalog.run, source):
            distance = measured.distances[place.shard]
            said["quality"] = f"Fréchet distance {distance:.4g} of its shard (features: {measured.space})"
        try:
            said |= self._map.nearest(source, place)
        except BadInput as error:
            said["map_problem"] = str(error)
        try:
            kind, width, height = pictures.header(self._reader.one(source, place))
            said |= {"format": kind, "width_px": width, "height_px": height}
        except (ValueError, AdaInfError) as error:
            said["problem"] = str(error)
        return JSONResponse(said)

    def image(self, query: QueryParams) -> Response:
        source = self._source(query)
        try:
            picture = pictures.full(self._reader.one(source, _place(query)))
        except ValueError as error:
            raise BadInput(f"it cannot be shown: {error}") from None
        return Response(picture.data, media_type=picture.media_type)

    def map(self, query: QueryParams) -> Response:
        """The number of real points and of generated ones, 32 bits each; then x and y of all, float32 (all little endian)."""
        found = self._map.read(query.get("of"))
        points = [xy.astype("<f4").tobytes() for xy in (found.real_xy, found.generated_xy)]
        counts = struct.pack("<II", len(found.real_xy), len(found.generated_xy))
        return Response(b"".join([counts, *points]), media_type="application/octet-stream")

    def run(self, query: QueryParams) -> Response:
        return JSONResponse(self._overview.read())

    def curves(self, query: QueryParams) -> Response:
        return JSONResponse(self._overview.curves())

    def _shards(self, source: Source, query: QueryParams) -> list[int] | None:
        """Those that the viewer has chosen: one, or some by their quality; None is all."""
        shard, order = _number(query, "shard"), query.get("quality")
        if shard is not None or not order or order in get_args(ByRealism):
            return None if shard is None else [shard]
        measured = quality_of(self._catalog.run, source)
        if measured is None:
            raise BadInput(f"the quality of {source.name} has not been measured")
        return measured.shards(order)

    def _source(self, query: QueryParams) -> Source:
        return self._catalog.source(query.get("source"))


class _Guard:
    """Lets in whom it should, and puts on every answer what it must not lack."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(HTTPConnection(scope), scope)
        return await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, asked: HTTPConnection, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return JSONResponse({"problem": "this page is for reading only"}, 405, {"Allow": "GET, HEAD"})
        if self._token is None:
            host = Headers(scope=scope).get("host", "").rsplit(":", 1)[0]
            return None if host in _LOOPBACK else JSONResponse({"problem": "call it localhost"}, 421)
        if secrets.compare_digest(asked.cookies.get(COOKIE, "").encode(), self._token.encode()):
            return None
        if secrets.compare_digest(asked.query_params.get("token", "").encode(), self._token.encode()):
            answer = RedirectResponse("/", 303)  # so that it stays in no history and no log
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", secure=scope["scheme"] == "https")
            return answer
        return JSONResponse({"problem": "open the address that `adainf shards serve` has printed: it holds the token"}, 401)


def _files() -> dict[str, bytes]:
    """The page's own files, by name. A path that a viewer asks for is looked up among these, and never on a disk."""
    return {file.name: file.read_bytes() for file in files("adainf.browse").joinpath("static").iterdir() if file.is_file()}


def _static(name: str) -> Callable[[Request], Response]:
    content = _files()[name]
    media_type = _TYPES[name[name.rindex(".") :]]
    return lambda request: Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _answers(answer: Callable[[QueryParams], Response]) -> Callable[[Request], Response]:
    return lambda request: answer(request.query_params)


def _describe(source: Source) -> dict[str, Any]:
    known = source.known
    said: dict[str, Any] = {
        "name": source.name,
        "uri": source.run.uri,
        "shards": source.shards,
        "samples": sum(known),
        "complete": len(known) == source.shards,
        "bytes": sum(source.tar_sizes_bytes),
        "digest": source.digest,
        "labelled": bool(source.classes),
    }
    if isinstance(source, IndexedSource):
        said |= {
            "labelled": bool(source.classes) or source.split.labelled,
            "channel_means": source.split.channel_means,
            "channel_stds": source.split.channel_stds,
        }
    return said


def _packed(source: Source, found: Page, images: list[Encoded]) -> bytes:
    told: list[dict[str, Any]] = []
    data: list[bytes] = []
    for place, image in zip(found.places, images, strict=True):
        one: dict[str, Any] = {"shard": place.shard, "number": place.number}
        try:
            if isinstance(image, Problem):
                raise ValueError(image.reason)
            columns = source.columns(place.shard)
            one |= {"key": columns.keys[place.number], "label": int(columns.labels[place.number])}
            picture = pictures.thumbnail(image)
            one |= {"type": picture.media_type, "bytes": len(picture.data)}
            data.append(picture.data)
        except ValueError as error:
            one["problem"] = str(error)
        told.append(one)
    header = json.dumps({"total": found.total, "complete": found.complete, "samples": told}).encode()
    return b"".join([struct.pack("<I", len(header)), header, *data])


def _name(source: Source, label: int) -> str | None:
    return source.classes[label] if 0 <= label < len(source.classes) else None


def _beside(source: Source, place: Place, step: int) -> list[int] | None:
    number, shard = place.number + step, place.shard
    if number < 0:
        shard -= 1
        number = (source.counts[shard] or 0) - 1 if shard >= 0 else -1
    elif number >= (source.counts[shard] or 0):
        shard, number = shard + 1, 0
    return [shard, number] if 0 <= shard < source.shards and number >= 0 else None


def _place(query: QueryParams) -> Place:
    return Place(_number(query, "shard", 0) or 0, _number(query, "number", 0) or 0)


def _number(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """Raises `BadInput` for what is no whole number, or one that no set is large enough for."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise BadInput(f"{name} is {text[:40]!r}, expected a whole number")
    return int(text)


async def _problem(request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 404 if isinstance(error, BadInput) else 502)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"problem": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": "the server has failed; its terminal says more"}, 500)
