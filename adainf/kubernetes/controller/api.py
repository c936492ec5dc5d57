"""Client of the Kubernetes API on plain JSON. The `kubernetes` package provides addresses, certificates and tokens."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME
from kubernetes.config.kube_config import list_kube_config_contexts
from urllib3.exceptions import HTTPError

from adainf.errors import BadInput
from adainf.kubernetes.controller.templates import Object

JOBS = "apis/batch/v1"
"""API group of jobs and cronjobs."""
PODS = "api/v1"
EVENTS = "apis/events.k8s.io/v1"

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = (5, 20)
"""Connect and read time-out."""
_WATCH_S = 60
_TRIES = 5
_CLOCK_RESOLUTION_S = 2
"""A smaller difference from the clock of the API server is not corrected: its header has whole seconds."""
_CONNECTION_ERRORS = (HTTPError, OSError, ApiException)
"""What the client raises without a response. `ApiException` is a TLS failure."""


class ApiStatusError(Exception):
    """The API server responded with an HTTP error status that a retry does not fix."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(Exception):
    """The API server did not respond, or responded with a transient error, to all retries."""


class Api:
    """Client of the API server, for one namespace."""

    def __init__(self, configuration: Any, namespace: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.namespace = namespace
        self._configuration, self._sleep = configuration, sleep
        self._rest = RESTClientObject(configuration)
        self._offset_s = 0.0

    def now(self) -> float:
        """Seconds since 1970 by the clock of the API server, which the times of its objects are from."""
        return time.time() + self._offset_s

    def get(self, group: str, kind: str, name: str) -> Object:
        """One object. Raises `ApiStatusError` (404) if it does not exist."""
        return self._call("GET", self._path(group, kind, name))

    def list(self, group: str, kind: str, **query: str) -> Object:
        """A list object: `items`, and the list's `resourceVersion` in its metadata."""
        return self._call("GET", self._path(group, kind), query)

    def watch(self, group: str, kind: str, version: str, **query: str) -> Iterator[Object]:
        """Watch events after `version`, until the server closes the watch, which it does within minutes.

        Raises `ApiStatusError` (410) if `version` has expired, `Unavailable` if the connection breaks.
        """
        query |= {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S), "allowWatchBookmarks": "true"}
        try:
            response = self._request("GET", self._path(group, kind), query, None, timeout_s=(5, _WATCH_S + 10))
            if response.status != 200:
                raise ApiStatusError(response.status, _message(response.data))
            try:
                for event in map(json.loads, _lines(response)):
                    if event["type"] == "ERROR":
                        raise ApiStatusError(event["object"].get("code", 500), event["object"].get("message", ""))
                    yield event
            finally:
                response.close()
        except (*_CONNECTION_ERRORS, ValueError) as error:
            raise Unavailable(f"watch of {kind}: the connection broke ({type(error).__name__})") from None

    def create(self, group: str, kind: str, body: Object, *, dry_run: bool = False) -> Object:
        """The object as the server stores it, or would store it. Raises `ApiStatusError` (409) if the name exists."""
        return self._call("POST", self._path(group, kind), {"dryRun": "All"} if dry_run else {}, body)

    def patch(self, group: str, kind: str, name: str, body: Object) -> Object:
        """A JSON merge patch."""
        return self._call("PATCH", self._path(group, kind, name), {}, body)

    def delete(self, group: str, kind: str, thing: Object) -> None:
        """Delete an object, and in the background what it owns. A new object of the same name stays."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": thing["metadata"]["uid"]}}
        self._call("DELETE", self._path(group, kind, thing["metadata"]["name"]), {}, body)

    def _path(self, group: str, kind: str, name: str = "") -> str:
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _call(self, method: str, path: str, query: dict[str, str] | None = None, body: Object | None = None) -> Object:
        for attempt in range(_TRIES):
            wait_s = random.uniform(0.5, 1) * 0.25 * 2**attempt
            try:
                response = self._request(method, path, query or {}, body, _TIMEOUT_S)
                data = response.data
            except _CONNECTION_ERRORS as error:
                problem = f"the API server does not respond ({type(error).__name__})"
            else:
                if response.status < 300:
                    return json.loads(data)
                # The token may have been rotated between its read and the request, which gives 401.
                if response.status not in (401, 408, 429) and response.status < 500:
                    raise ApiStatusError(response.status, _message(data))
                problem = f"the API server responds with {response.status} ({_message(data)})"
                wait_s = max(wait_s, min(float(response.headers.get("Retry-After", 0) or 0), 30))
            if attempt + 1 < _TRIES:
                self._sleep(wait_s)
        raise Unavailable(f"{method} {path}: {problem}; {_TRIES} attempts failed")

    def _request(self, method: str, path: str, query: dict[str, str], body: Object | None, timeout_s: tuple[int, int]) -> Any:
        """The unread response of urllib3."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": "adainf-controller"}
        for setting in self._configuration.auth_settings().values():  # reads the token again
            if setting["value"]:
                headers[setting["key"]] = setting["value"]
        url = f"{self._configuration.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        response = self._rest.request(method, url, headers, body, _request_timeout=timeout_s).response
        with suppress(TypeError, ValueError):  # no valid header
            offset_s = parsedate_to_datetime(response.headers.get("Date")).timestamp() - time.time()
            self._offset_s = offset_s if abs(offset_s) > _CLOCK_RESOLUTION_S else 0.0
        return response


def _lines(response: Any) -> Iterator[bytes]:
    """Each line as soon as it arrives. Iterating over a response that is not chunked would wait for 64 KiB."""
    rest = b""
    while data := response.read1(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _message(data: bytes) -> str:
    """The message of a `Status` object."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, TypeError, KeyError):
        return data[:200].decode(errors="replace")


def read_token(file: Path) -> Callable[[Any], None]:
    """A hook that reads the token from its file before each request. Kubelets rotate it long before it expires."""

    def refresh(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = f"Bearer {file.read_text().strip()}"

    return refresh


def connect(namespace: str | None = None) -> Api:
    """A client of this pod's cluster, else of the kubeconfig's current context. `namespace` defaults to theirs.

    Raises `BadInput` if there is neither.
    """
    configuration: Any = Configuration()
    configuration.retries = False  # `Api` retries, by status
    try:
        load_incluster_config(client_configuration=configuration)
        configuration.refresh_api_key_hook = read_token(Path(SERVICE_TOKEN_FILENAME))
        own = _NAMESPACE.read_text().strip() if _NAMESPACE.is_file() else "default"
        return Api(configuration, namespace or own)
    except ConfigException:
        pass
    try:
        file = os.environ.get("KUBECONFIG")  # the client evaluates its own default at import time
        load_kube_config(file, client_configuration=configuration)
        context = list_kube_config_contexts(file)[1]["context"]
    except (ConfigException, OSError) as error:
        raise BadInput(
            f"no Kubernetes cluster is configured ({error}): set KUBECONFIG to a file with a current context"
        ) from None
    return Api(configuration, namespace or context.get("namespace", "default"))
