"""A real cluster with the interface of `tests.cluster.Cluster`, for the tests of docs/job-semantics.md.

A pod waits behind a scheduling gate until the test has said what it plays; then it is a Python program that does so.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

from adainf.kubernetes.controller.api import Api, connect
from tests.cluster import Exit, Process, Script
from tests.cluster.job_controller import condition

T = TypeVar("T")
Object = dict[str, Any]
Play = Callable[[Object], Script | Process]

MERGE = "application/merge-patch+json"
GATE = "adainf.dev/script"
PROGRAM = """
import json, os, signal, sys, time
play = json.loads(os.environ["SCRIPT"])
def stop(*_):
    if play["on_sigterm"] is not None:
        time.sleep(play["sigterm_s"])
        os._exit(play["on_sigterm"])
signal.signal(signal.SIGTERM, stop)
end = time.monotonic() + play["after_s"]
while time.monotonic() < end:
    time.sleep(0.05)
filled = []
while play["reason"] == "OOMKilled":
    filled.append(os.urandom(1 << 20))
sys.exit(play["code"])
"""
KINDS = {"jobs": "Job", "secrets": "Secret", "resourcequotas": "ResourceQuota"}


class RealCluster:
    """The cluster of the kubeconfig, with a temporary namespace. `image` contains Python and tini."""

    speed = 1.0

    def __init__(self, image: str) -> None:
        self.namespace = f"adainf-semantics-{secrets.token_hex(3)}"
        self.kubelet = SimpleNamespace(missing_images=set(), log=self._log)
        self._image = image
        self._api: Api = connect(self.namespace)
        self._play: Play = lambda pod: Script()
        self._closing = threading.Event()
        self._player = threading.Thread(target=self._play_pods)

    def __enter__(self) -> Self:
        self._call("POST", "api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.until(lambda: self.request("GET", "serviceaccounts/default")[0] == 200)
        self._player.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._player.join()
        for pod in self.pods():
            self.request("DELETE", f"pods/{pod['metadata']['name']}?gracePeriodSeconds=0")
        self._call("DELETE", f"api/v1/namespaces/{self.namespace}")

    def on_pod(self, play: Play) -> None:
        self._play = play

    def request(
        self, method: str, path: str, body: Object | None = None, account: str = "", kind: str = "application/json"
    ) -> tuple[int, Object]:
        root, _, rest = path.rpartition("v1/")
        plural = rest.partition("?")[0]
        if method == "POST" and plural in KINDS and body:
            body = {"apiVersion": f"{root}v1", "kind": KINDS[plural], **(self._playing(body) if plural == "jobs" else body)}
        if plural.endswith("/eviction"):
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": plural.split("/")[1]}}
        if method == "DELETE" and body:
            body = {"apiVersion": "v1", "kind": "DeleteOptions", **body}
        group = f"apis/{root}v1" if root else "api/v1"
        answer = self._call(method, f"{group}/namespaces/{self.namespace}/{rest}", body, kind)
        if method == "POST" and plural == "resourcequotas":  # it is enforced once the quota controller has set its status
            self.until(lambda: self.request("GET", "resourcequotas")[1]["items"][0]["status"].get("used"))
        return answer

    def job(self, name: str) -> Object | None:
        code, job = self.request("GET", f"batch/v1/jobs/{name}")
        return job if code == 200 else None

    def pods(self, job: str | None = None) -> list[Object]:
        pods = self.request("GET", "pods")[1]["items"]
        return [pod for pod in pods if job in (None, pod["metadata"].get("labels", {}).get("job-name"))]

    def events(self, name: str) -> list[Object]:
        return [event for event in self.request("GET", "events")[1]["items"] if event["involvedObject"]["name"] == name]

    def preempt(self, pod: Object) -> None:
        """Evict a pod, which sets the same condition as a preemption."""
        self.request("POST", f"pods/{pod['metadata']['name']}/eviction", {})

    def until(self, look: Callable[[], T], timeout_s: float = 180) -> T:
        end = time.monotonic() + timeout_s
        while not (found := look()):
            assert time.monotonic() < end, f"not within {timeout_s} s: {self.request('GET', 'batch/v1/jobs')[1]['items']}"
            time.sleep(0.1)
        return found

    def until_ended(self, job: str, timeout_s: float = 180) -> Object:
        def ended() -> Object | None:
            found = self.job(job) or {}
            return condition(found, "Complete") or condition(found, "Failed")

        return self.until(ended, timeout_s) or {}

    def _playing(self, job: Object) -> Object:
        """The Job with containers that execute the test's script."""
        pod = job["spec"]["template"]["spec"]
        missing = bool(self.kubelet.missing_images)
        script = {"name": "SCRIPT", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{GATE}']"}}}
        small = {"requests": {"memory": "32Mi"}, "limits": {"memory": "64Mi"}}
        containers = [
            {
                "command": ["python", "-c", PROGRAM],
                "resources": small,
                **each,
                "image": f"localhost/missing/{each['image']}" if missing else self._image,
                "env": [*each.get("env", []), script],
            }
            for each in pod["containers"]
        ]
        template = {**job["spec"]["template"], "spec": {**pod, "containers": containers, "schedulingGates": [{"name": GATE}]}}
        return {**job, "spec": {**job["spec"], "template": template}}

    def _play_pods(self) -> None:
        """Annotate each new pod with the test's script, and remove its scheduling gate."""
        while not self._closing.wait(0.1):
            for pod in sorted(self.pods(), key=lambda pod: pod["metadata"]["creationTimestamp"]):
                if pod["spec"].get("schedulingGates") and "deletionTimestamp" not in pod["metadata"]:
                    metadata = {"annotations": {GATE: _script(self._play(pod))}}
                    change = {"metadata": metadata, "spec": {"schedulingGates": []}}
                    self.request("PATCH", f"pods/{pod['metadata']['name']}", change, kind=MERGE)

    def _log(self, pod: Object) -> str:
        return str(self.request("GET", f"pods/{pod['metadata']['name']}/log")[1].get("text", ""))

    def _call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> tuple[int, Object]:
        url = f"{self._api._configuration.host}/{path}"
        headers = {"Content-Type": kind, **{s["key"]: s["value"] for s in self._api._configuration.auth_settings().values()}}
        answer = self._api._rest.request(method, url, headers=headers, body=body, _request_timeout=(5, 20)).response
        try:
            return answer.status, json.loads(answer.data)
        except ValueError:
            return answer.status, {"text": answer.data.decode()}


def _script(play: Script | Process) -> str:
    if isinstance(play, Process):
        return "{}"
    ending: Exit | None = play.on_sigterm
    return json.dumps(
        {
            "code": play.exit.code,
            "reason": play.exit.reason,
            "after_s": min(play.after_s, 1e6),
            "on_sigterm": ending.code if ending else None,
            "sigterm_s": play.sigterm_s,
        }
    )
