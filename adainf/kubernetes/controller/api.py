"""The few calls to the Kubernetes API, on plain JSON. The `kubernetes` client brings addresses, certificates and tokens."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
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
"""Of jobs and cronjobs."""
PODS = "api/v1"
EVENTS = "apis/events.k8s.io/v1"

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = (5, 20)
"""To connect, and for an answer."""
_WATCH_S = 60
_TRIES = 5
_NO_ANSWER = (HTTPError, OSError, ApiException)
"""What the client raises instead of an answer; `ApiException` where TLS fails."""


class Refused(Exception):
    """The API's answer is a status from 400 on which another try does not mend."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(Exception):
    """The API did not answer, or asked to come later, again and again."""


class Api:
    """The API server, in one namespace."""

    def __init__(self, configuration: Any, namespace: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.namespace = namespace
        self._configuration, self._sleep = configuration, sleep
        self._rest = RESTClientObject(configuration)

    def get(self, group: str, kind: str, name: str) -> Object:
        """One object. Raises `Refused` (404) where there is none."""
        return self._call("GET", self._path(group, kind, name))

    def list(self, group: str, kind: str, **query: str) -> Object:
        """A list object with `items` and the `resourceVersion` of it in its metadata."""
        return self._call("GET", self._path(group, kind), query)

    def watch(self, group: str, kind: str, version: str, **query: str) -> Iterator[Object]:
        """Events after `version`, until the server ends them, which it does within minutes.

        Raises `Refused` (410) where it has forgotten that version, `Unavailable` where the connection breaks.
        """
        query |= {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S), "allowWatchBookmarks": "true"}
        try:
            answer = self._request("GET", self._path(group, kind), query, None, timeout_s=(5, _WATCH_S + 10))
            if answer.status != 200:
                raise Refused(answer.status, _message(answer.data))
            try:
                for event in map(json.loads, _lines(answer)):
                    if event["type"] == "ERROR":
                        raise Refused(event["object"].get("code", 500), event["object"].get("message", ""))
                    yield event
            finally:
                answer.close()
        except (*_NO_ANSWER, ValueError) as error:
            raise Unavailable(f"the watch of {kind} broke ({type(error).__name__})") from None

    def create(self, group: str, kind: str, body: Object, *, dry_run: bool = False) -> Object:
        """The object as the server keeps it, or would keep it. Raises `Refused` (409) where the name is taken."""
        return self._call("POST", self._path(group, kind), {"dryRun": "All"} if dry_run else {}, body)

    def patch(self, group: str, kind: str, name: str, body: Object) -> Object:
        """A JSON merge patch."""
        return self._call("PATCH", self._path(group, kind, name), {}, body)

    def _path(self, group: str, kind: str, name: str = "") -> str:
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _call(self, method: str, path: str, query: dict[str, str] | None = None, body: Object | None = None) -> Object:
        for attempt in range(_TRIES):
            wait_s = random.uniform(0.5, 1) * 0.25 * 2**attempt
            try:
                answer = self._request(method, path, query or {}, body, _TIMEOUT_S)
                data = answer.data
            except _NO_ANSWER as error:
                problem = f"the API server does not answer ({type(error).__name__})"
            else:
                if answer.status < 300:
                    return json.loads(data)
                # A 401 may be of a token that was replaced in this moment.
                if answer.status not in (401, 408, 429) and answer.status < 500:
                    raise Refused(answer.status, _message(data))
                problem = f"the API server answers {answer.status} ({_message(data)})"
                wait_s = max(wait_s, min(float(answer.headers.get("Retry-After", 0) or 0), 30))
            if attempt + 1 < _TRIES:
                self._sleep(wait_s)
        raise Unavailable(f"{method} {path}: {problem}, {_TRIES} times")

    def _request(self, method: str, path: str, query: dict[str, str], body: Object | None, timeout_s: tuple[int, int]) -> Any:
        """The answer of urllib3, not read yet."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": "adainf-controller"}
        for setting in self._configuration.auth_settings().values():  # reads the token anew
            if setting["value"]:
                headers[setting["key"]] = setting["value"]
        url = f"{self._configuration.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        return self._rest.request(method, url, headers, body, _request_timeout=timeout_s).response


def _lines(answer: Any) -> Iterator[bytes]:
    """Each line as soon as it is there; iterating over the answer waits for 64 KiB where it is not chunked."""
    rest = b""
    while data := answer.read1(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _message(data: bytes) -> str:
    """What a `Status` object says."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, TypeError, KeyError):
        return data[:200].decode(errors="replace")


def read_token(file: Path) -> Callable[[Any], None]:
    """A hook that takes the token from its file for each request: kubelets replace it long before it is invalid."""

    def refresh(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = f"Bearer {file.read_text().strip()}"

    return refresh


def connect(namespace: str | None = None) -> Api:
    """The cluster of this pod, else the one of the kubeconfig's context, whose namespace is the default.

    Raises `BadInput` where there is neither.
    """
    configuration: Any = Configuration()
    configuration.retries = False  # ours tell what can be tried again
    try:
        load_incluster_config(client_configuration=configuration)
        configuration.refresh_api_key_hook = read_token(Path(SERVICE_TOKEN_FILENAME))
        own = _NAMESPACE.read_text().strip() if _NAMESPACE.is_file() else "default"
        return Api(configuration, namespace or own)
    except ConfigException:
        pass
    try:
        file = os.environ.get("KUBECONFIG")  # the client's own default is that of its import
        load_kube_config(file, client_configuration=configuration)
        context = list_kube_config_contexts(file)[1]["context"]
    except (ConfigException, OSError) as error:
        raise BadInput(f"no cluster to ask ({error}); set KUBECONFIG to a file with a current context") from None
    return Api(configuration, namespace or context.get("namespace", "default"))
