"""Who may use the page: middleware that rejects unauthorized requests and adds security headers to every response."""

from __future__ import annotations

import hashlib
import secrets
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>AdaInf: access token</title>
<h1>Access token</h1><p>This server needs the token that <code>adainf shards serve</code> printed.</p>
<form action="/"><label>Token <input name="token" type="password" autocomplete="off" required autofocus></label>
<button>Open</button></form></html>"""


class Guard:
    """Middleware. With a `token`, every request needs it: as ``Authorization: Bearer TOKEN``, or once as ``?token=TOKEN``,
    which sets a cookie. Without one (`--no-token`), only requests with a loopback host name are accepted, which prevents DNS
    rebinding.

    Browsers send a cookie to every port of a host. So its name and value are derived from the token: servers on other ports of
    the host have other cookies, and do not learn the token.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token or ""
        self._session = hashlib.sha256(f"session of {self._token}".encode()).hexdigest()
        self._cookie = f"adainf-{self._session[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        rejection = self._reject(HTTPConnection(scope), scope)
        return await (rejection or self._app)(scope, receive, guarded)

    def _reject(self, request: HTTPConnection, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return JSONResponse({"error": "the server is read-only; use GET or HEAD"}, 405, {"Allow": "GET, HEAD"})
        if not self._token:
            host = Headers(scope=scope).get("host", "").rsplit(":", 1)[0]
            return None if host in _LOOPBACK else JSONResponse({"error": "unknown host name; open the page as localhost"}, 421)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is_equal(bearer.strip(), self._token):
            return None
        if _is_equal(request.cookies.get(self._cookie, ""), self._session):
            return None
        query = request.query_params
        if _is_equal(query.get("token", "").strip(), self._token):
            rest = urlencode([(name, value) for name, value in query.multi_items() if name != "token"])
            response = RedirectResponse(f"/?{rest}" if rest else "/", 303)  # without the token in history and logs
            # Lax: a link in a mail or a chat opens the page. Requests that other sites make in the background have no cookie.
            secure = scope["scheme"] == "https"
            response.set_cookie(self._cookie, self._session, httponly=True, samesite="lax", secure=secure)
            return response
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_FORM, 401, {"WWW-Authenticate": "Bearer"})
        return JSONResponse(
            {"error": "missing or invalid token; open the address that `adainf shards serve` printed, or append ?token=TOKEN"},
            401,
            {"WWW-Authenticate": "Bearer"},
        )


def _is_equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())
