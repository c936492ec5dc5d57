"""The HTTP API, as far as kubectl and JSON clients need it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.cluster import patches
from tests.cluster.access import Access, Call
from tests.cluster.admission import admit
from tests.cluster.collector import FINALIZERS
from tests.cluster.defaults import fill
from tests.cluster.events import shown, stored
from tests.cluster.faults import Faults
from tests.cluster.kinds import discovery, kind_of
from tests.cluster.nodes import disrupt
from tests.cluster.selectors import selects
from tests.cluster.statuses import Refusal, not_found
from tests.cluster.store import Object, Store, named

_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": patches.merge,
    "application/strategic-merge-patch+json": patches.strategic,
    "application/apply-patch+yaml": patches.strategic,
}


class Server(ThreadingHTTPServer):
    """Listens on loopback. `calls` are in order of arrival."""

    daemon_threads = True

    def __init__(self, store: Store, access: Access, faults: Faults, log: Callable[[Object], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.access, self.faults, self.log = store, access, faults, log
        self.calls: list[Call] = []
        self.closing = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        try:
            found = discovery(url.path) if self.command == "GET" else None
            if found:
                return self._send(200, found)
            request = _Request(self.server, self.command, url.path, query, self.headers, body)
            if request.call.verb == "watch":
                return self._watch(request)
            code, answer = request.answer()
            self.server.faults.after(request.call)
            self._send(code, answer)
        except Refusal as refusal:
            self._send(refusal.code, refusal.body(), refusal.retry_after_s)

    def _send(self, code: int, answer: Object | str, retry_after_s: int | None = None) -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self, request: _Request) -> None:
        """Stream events as lines of JSON, until `timeoutSeconds`."""
        query = request.query
        until = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        dropped = self.server.faults.watch()
        since = int(query.get("resourceVersion") or 0) or self.server.store.version

        def over() -> bool:
            return time.monotonic() > until or self.server.closing or dropped()

        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.faults.after(request.call)
        try:
            if query.get("resourceVersion", "0") in ("", "0"):
                for each in request.listed():
                    self._chunk({"type": "ADDED", "object": each})
            if query.get("sendInitialEvents") == "true":  # a streaming list: a bookmark marks its end
                ends = {"resourceVersion": str(since), "annotations": {"k8s.io/initial-events-end": "true"}}
                bookmark = {"kind": request.kind.name, "apiVersion": request.kind.api_version, "metadata": ends}
                self._chunk({"type": "BOOKMARK", "object": bookmark})
            for change in self.server.store.watch(request.kind.plural, request.namespace or None, since, over):
                if change and selects(change[1], query):
                    self._chunk({"type": change[0], "object": shown(change[1], request.kind.group)})
        except Refusal as refusal:
            self._chunk({"type": "ERROR", "object": refusal.body()})
        self.wfile.write(b"0\r\n\r\n" if not dropped() else b"")
        self.close_connection = True

    def _chunk(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()


class _Request:
    """One request and its response."""

    def __init__(self, server: Server, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> None:
        user = server.access.user(headers.get("Authorization", ""))
        if user is None:
            raise Refusal(401, "Unauthorized")
        self.query, self.headers = query, headers
        self._server, self._store, self._body, self._method = server, server.store, body, method
        match path.strip("/").split("/"):
            case ["api", "v1", *rest]:
                group = ""
            case ["apis", group, "v1", *rest]:
                pass
            case _:
                raise Refusal(404, "the server could not find the requested resource")
        self.namespace = rest[1] if rest[:1] == ["namespaces"] and len(rest) > 2 else ""
        plural, self.name, self.subresource = [*(rest[2:] if self.namespace else rest), "", "", ""][:3]
        kind = kind_of(group, plural)
        if kind is None:
            raise Refusal(404, "the server could not find the requested resource")
        self.kind = kind
        resource = f"{plural}/{self.subresource}" if self.subresource else plural
        self.call = Call(user, self._verb(), group, resource, self.name, self.namespace)
        server.calls.append(self.call)
        server.faults.before(self.call)
        if not server.access.allows(self.call):
            what = f'cannot {self.call.verb} resource "{resource}" in API group "{group}" in the namespace "{self.namespace}"'
            raise Refusal(403, f'{kind.resource} "{self.name}" is forbidden: User "{user}" {what}')

    def _verb(self) -> str:
        if self._method == "GET":
            return "watch" if self.query.get("watch") in ("true", "1") else "get" if self.name else "list"
        if self._method == "DELETE":
            return "delete" if self.name else "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}[self._method]

    def answer(self) -> tuple[int, Object | str]:
        match self._method, self.subresource:
            case "GET", "log":
                return 200, self._server.log(self._old())
            case "POST", "eviction":
                disrupt(self._store, self._old(), "EvictionByEvictionAPI", "Eviction API: evicting")
                return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            case "GET", _ if self.name:
                return 200, shown(self._old(), self.kind.group)
            case "GET", _:
                metadata = {"resourceVersion": str(self._store.version)}
                items = self.listed()
                return 200, {
                    "kind": f"{self.kind.name}List",
                    "apiVersion": self.kind.api_version,
                    "metadata": metadata,
                    "items": items,
                }
            case "POST", _:
                return 201, self._create(self._parsed())
            case (("PUT" | "PATCH"), _):
                return self._write()
        return 200, self._delete()

    def listed(self) -> list[Object]:
        everything = self._store.list(self.kind.plural, self.namespace or None)
        return [shown(each, self.kind.group) for each in everything if selects(each, self.query)]

    def _old(self) -> Object:
        old = self._store.get(self.kind.plural, self.namespace, self.name)
        if old is None:
            raise not_found(self.kind.resource, self.name)
        return old

    @property
    def _dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    def _parsed(self) -> Any:
        kind = self.headers.get("Content-Type", "application/json")
        if "protobuf" in kind or "cbor" in kind:
            raise Refusal(
                415,
                f"the body of the request was in an unknown format - accepted media types include: application/json ({kind})",
            )
        try:
            return yaml.safe_load(self._body) if "yaml" in kind else json.loads(self._body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"the body is not valid JSON: {error}") from None

    def _create(self, new: Object) -> Object:
        metadata = new.setdefault("metadata", {})
        for field in ("uid", "resourceVersion", "creationTimestamp"):
            metadata.pop(field, None)
        new = stored(new) if self.kind.plural == "events" else new
        with self._store.lock:
            if self.kind.namespaced:
                metadata["namespace"] = self.namespace
            if self._store.get(self.kind.plural, self.namespace, metadata.get("name", "")):
                raise Refusal(409, f'{self.kind.resource} "{metadata["name"]}" already exists', reason="AlreadyExists")
            new = named(new)
            if self.kind.plural in ("pods", "jobs"):
                new["status"] = {"phase": "Pending"} if self.kind.plural == "pods" else {}
            fill(self.kind.plural, new)
            admit(self._store, self.kind, new, None)
            return shown(self._store.create(self.kind, self.namespace, new, dry_run=self._dry_run), self.kind.group)

    def _write(self) -> tuple[int, Object]:
        patch = self._parsed()
        with self._store.lock:
            if self._method == "PUT":
                new, old = patch, self._old()
            else:
                how = self.headers["Content-Type"]
                if how not in _PATCHES:
                    raise Refusal(415, f"patches of type {how} are not supported")
                applied = how == "application/apply-patch+yaml"
                if applied and self._store.get(self.kind.plural, self.namespace, self.name) is None:
                    return 201, self._create(patch)
                old = self._old()
                new = _PATCHES[how](old, patch)
            fill(self.kind.plural, new)
            if self.subresource != "status":
                admit(self._store, self.kind, new, old)
            return 200, self._store.replace(self.kind.plural, new, status=self.subresource == "status", dry_run=self._dry_run)

    def _delete(self) -> Object:
        options = self._parsed() if self._body else {}
        victims = [self._old()] if self.name else self.listed()
        # By default dependents of batch/v1 Jobs are orphaned, unlike those of other kinds.
        default = "Orphan" if self.kind.plural == "jobs" else "Background"
        policy = options.get("propagationPolicy") or self.query.get("propagationPolicy") or default
        wanted = options.get("preconditions", {}).get("uid")
        if self._dry_run:
            return victims[0]
        for victim in victims:
            if wanted not in (None, victim["metadata"]["uid"]):
                raise Refusal(
                    409, f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {victim['metadata']['uid']}"
                )
            left = self._store.delete(
                self.kind.plural, victim, grace_s=options.get("gracePeriodSeconds"), finalizer=FINALIZERS[policy]
            )
        if (
            self.name
            and "deletionTimestamp" in left["metadata"]
            and self._store.get(self.kind.plural, self.namespace, self.name)
        ):
            return left
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
