"""The complete controller and the simulated cluster in one thread and in virtual time, without sockets and processes.

Whenever the controller is about to stop or supersede an attempt, or to end, the simulation checks that no pod makes progress.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from kubernetes.client.configuration import Configuration

from adainf.kubernetes.controller import api, informer, main, recipes, snapshot
from adainf.kubernetes.controller.actions import Finish
from adainf.kubernetes.controller.api import Api, ApiStatusError, Unavailable
from adainf.kubernetes.controller.main import Controller
from adainf.kubernetes.controller.parse import seconds
from adainf.kubernetes.controller.templates import Owner
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.recipe import Recipe
from tests.cluster import Exit, Script, clock, tally
from tests.cluster.access import Access
from tests.cluster.collector import collect
from tests.cluster.defaults import fill
from tests.cluster.events import record
from tests.cluster.faults import Faults
from tests.cluster.job_controller import JobController, condition
from tests.cluster.kinds import kind_of
from tests.cluster.kubelet import Kubelet
from tests.cluster.nodes import Node, Nodes, alive, disrupt
from tests.cluster.server import _Request
from tests.cluster.statuses import Refusal
from tests.cluster.store import Object, Store, named
from tests.kubernetes.controller.pipeline import RECIPE, ROOT, commit, task

SHORT = RECIPE.read_text().replace("name: demo", "name: demo\narms: [none, vanilla]").replace("[0, 1, 2]", "[0]")
"""Gangs, workers and single pods, with few artifacts."""
NAMESPACE, OWNER = "lab", "adainf"
START_TIMEOUT_S = 900
START = 1_800_000_000.0


class VirtualTime:
    """Replaces the module `time`. `skew_s`: by how much this clock is fast."""

    def __init__(self, of: VirtualTime | None = None) -> None:
        self._of, self.skew_s, self._now = of, 0.0, START

    def time(self) -> float:
        return self.monotonic() + self.skew_s

    def monotonic(self) -> float:
        return self._of.monotonic() if self._of else self._now

    def sleep(self, s: float) -> None:
        """No time passes while the controller works."""

    def advance(self, s: float) -> None:
        self._now += s


class Simulation:
    """One run. `time` is that of the API server and the cluster, `node_time` that of the controller's node."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.time = VirtualTime()
        self.node_time = VirtualTime(self.time)
        for module in (clock, tally):
            patch.setattr(module, "time", self.time)
        for module in (api, informer, main, recipes, snapshot):
            patch.setattr(module, "time", self.node_time)
        patch.setattr(informer, "RELIST_S", 0)  # no watch delivers anything
        patch.setattr(snapshot, "scrape", lambda pods: {})
        patch.setattr(main, "log", lambda text: None)
        patch.setenv("ADAINF_FIX_S", "900")
        self.store, self._clock = Store(), clock.Clock(1)
        self.nodes = Nodes(self.store, self._clock)
        self.kubelet = Kubelet(self.store, self._clock, folder / "pods", lambda: None)
        self.kubelet.play = lambda pod: Script(after_s=float("inf"), on_sigterm=Exit(75))
        self._jobs = JobController(self.store, self._clock)
        self._server: Any = SimpleNamespace(
            store=self.store, access=Access(self.store), faults=Faults(), log=lambda pod: "", calls=[]
        )
        self.run = Run(str(folder / "run"))
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(SHORT)
        self.progress_at: dict[str, float] = {}
        """Uid of a Job → when one of its pods last made progress."""
        self.end: Finish | None = None
        self._recipes: dict[str, Recipe] = {}
        for _ in range(6):
            self.add_node()
        self.templates = {each["metadata"]["name"]: each for each in map(_small, _cronjobs())}
        self.templates = {name: self.create("cronjobs", each) for name, each in self.templates.items()}
        spec = {"managedBy": "test/none", "template": {"spec": {"restartPolicy": "Never", "containers": []}}}
        self.owner = self.create("jobs", {"metadata": {"name": OWNER}, "spec": spec})
        self.restart_controller()

    def create(self, plural: str, thing: Object) -> Object:
        kind = kind_of("" if plural in ("resourcequotas", "events") else "batch", plural)
        assert kind
        new = named(json.loads(json.dumps(thing)))
        fill(plural, new)
        return self.store.create(kind, NAMESPACE, new)

    def restart_controller(self) -> None:
        """SIGKILL, and a new process."""
        configuration: Any = Configuration()
        configuration.host = "http://cluster"
        client = Api(configuration, NAMESPACE, self.node_time.sleep)
        client._rest = self  # type: ignore[assignment]
        owner = Owner(OWNER, self.owner["metadata"]["uid"], NAMESPACE)
        self.controller = Controller(client, owner, self.run.locate(""), self.recipe)

    def request(self, method: str, url: str, headers: Any, body: Any = None, _request_timeout: Any = None) -> Any:
        """The transport of the controller's client: as an HTTP response of the simulated API server."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        date = {"Date": formatdate(self.time.time(), usegmt=True)}
        if "watch" in query:
            empty = SimpleNamespace(status=200, headers=date, read1=lambda size: b"", close=lambda: None)
            return SimpleNamespace(response=empty)
        if method == "PATCH" and "activeDeadlineSeconds" in body.get("spec", {}):
            self._check_stop(parts.path.rpartition("/")[2])
        elif method == "POST" and parts.path.endswith("/jobs") and "dryRun" not in query:
            self._check_start(body)
        try:
            data = json.dumps(body).encode() if body is not None else b""
            status, answer = _Request(self._server, method, parts.path, query, headers, data).answer()
        except Refusal as refusal:
            status, answer = refusal.code, refusal.body()
        response = SimpleNamespace(status=status, headers=date, data=json.dumps(answer).encode())
        return SimpleNamespace(response=response)

    def sync(self) -> None:
        """Run the cluster's controllers until nothing changes."""
        for _ in range(20):
            before = self.store.version
            collect(self.store, ["jobs", "pods"])
            self._jobs.sync()
            self.nodes.sync()
            self.kubelet.sync()
            if self.store.version == before:
                break
        for job in self.attempts():
            if self.progressing(job):
                self.progress_at[job["metadata"]["uid"]] = self.time.time()

    def step(self) -> None:
        """One iteration of the controller."""
        if self.end is not None:
            return
        try:
            self.end = self.controller._step()
        except (Unavailable, ApiStatusError):
            return
        if self.end is not None:
            for job in self.attempts():
                assert not self.progressing(job), f"the pipeline ends ({self.end}) while {_name(job)} makes progress"

    def pass_time(self, s: float) -> None:
        self.time.advance(s)
        for _ in range(2):
            self.sync()
            self.step()
        self.sync()

    def attempts(self) -> list[Object]:
        return [job for job in self.store.list("jobs") if _name(job) != OWNER]

    def pods(self, job: Object | None = None) -> list[Object]:
        uid = job and job["metadata"]["uid"]
        pods = self.store.list("pods")
        return [pod for pod in pods if uid in (None, pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"])]

    def running(self, job: Object | None = None) -> list[Object]:
        """The pods that run on a node with power and are not being deleted."""
        living = {node["metadata"]["name"] for node in self.store.list("nodes") if alive(node)}
        return [
            pod
            for pod in self.pods(job)
            if pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
            and pod["spec"].get("nodeName") in living
        ]

    def progressing(self, job: Object) -> list[Object]:
        """The pods of an attempt that make progress. Those of a gang do so together."""
        if any(condition(job, kind) for kind in ("FailureTarget", "SuccessCriteriaMet", "Failed", "Complete")):
            return []  # its own failure, or its end
        running = self.running(job)
        if "adainf.dev/gang" in job["spec"]["template"]["metadata"]["labels"]:
            done = [pod for pod in self.pods(job) if pod["status"].get("phase") == "Succeeded"]
            return running if len(running) + len(done) >= job["spec"]["completions"] else []
        return running

    def finish(self, job: Object) -> None:
        """Commit the artifacts of an attempt's task, by the attempt's recipe, and end its pods."""
        commit(self.run, self._recipe_of(job), task(job["metadata"]["labels"]))
        for pod in self.running(job):
            self.fail(pod, 0)

    def fail(self, pod: Object, code: int) -> None:
        self.kubelet.runs[pod["metadata"]["uid"]].end(Exit(code))

    def preempt(self, pod: Object) -> None:
        disrupt(self.store, pod, "PreemptionByScheduler", "preempting")

    def stale_event(self, job: Object, age_s: float) -> None:
        """A `FailedCreate` Event of the past about an attempt. Also of the time before it existed, as for a recycled name."""
        record(
            self.store,
            {**job, "kind": "Job", "apiVersion": "batch/v1"},
            True,
            "FailedCreate",
            "exceeded quota",
            "job-controller",
        )
        (newest,) = (
            event for event in self.store.list("events") if event["metadata"]["resourceVersion"] == str(self.store.version)
        )
        when = clock.timestamp(-age_s)
        self.store.edit("events", newest, lambda new: new.update(lastTimestamp=when, firstTimestamp=when))

    def add_node(self) -> None:
        """A node for one pod, so that the pods of an attempt are on different nodes."""
        self.nodes.add(f"node-{len(self.store.list('nodes'))}", {"pods": "1"})

    def node(self, name: str) -> Node:
        return Node(self.store, name)

    def cordon(self, cordoned: bool) -> None:
        """Cordon all nodes, or end that."""
        for node in self.store.list("nodes"):
            (self.node(_name(node)).cordon if cordoned else self.node(_name(node)).uncordon)()

    def published(self) -> dict[str, list[Any]]:
        """What `adainf status` shows as conditions."""
        owner = self.store.get("jobs", NAMESPACE, OWNER)
        assert owner
        found: dict[str, list[Any]] = json.loads(owner["metadata"].get("annotations", {}).get("adainf.dev/conditions", "{}"))
        return found

    def _recipe_of(self, job: Object) -> Recipe:
        """As its pods read it: when it was created, before a user may delete the copy in the run."""
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        (uri,) = (each["value"] for each in env if each["name"] == "ADAINF_RECIPE")
        if uri not in self._recipes:
            self._recipes[uri] = load_recipe(uri)
        return self._recipes[uri]

    def _check_stop(self, name: str) -> None:
        job = self.store.get("jobs", NAMESPACE, name)
        assert job
        assert not self.progressing(job), f"{name} is terminated while it makes progress"
        lost = [
            pod
            for pod in self.pods(job)
            if pod["spec"].get("nodeName") and not alive(self.node(pod["spec"]["nodeName"])._object())
        ]
        since = max(self.progress_at.get(job["metadata"]["uid"], 0), seconds(job["metadata"]["creationTimestamp"]))
        assert lost or self.time.time() >= since + START_TIMEOUT_S - 2, (
            f"{name} is terminated {self.time.time() - since:.0f} s after progress"
        )

    def _check_start(self, body: Object) -> None:
        self._recipe_of(body)
        for job in self.attempts():
            if task(job["metadata"]["labels"]) == task(body["metadata"]["labels"]) and _name(job) != _name(body):
                assert not self.progressing(job), f"{_name(body)} supersedes {_name(job)}, which makes progress"


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def _cronjobs() -> list[Object]:
    text = (ROOT / "jobs" / "adainf-cpu.yaml").read_text()
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each["kind"] == "CronJob"]


def _small(cronjob: Object) -> Object:
    """A template with all that decides the life of its pods, and nothing else: the simulation copies it often."""
    spec = cronjob["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    container = {key: pod["containers"][0][key] for key in ("name", "image", "command")}
    kept = {key: pod[key] for key in ("restartPolicy", "terminationGracePeriodSeconds", "tolerations") if key in pod}
    template = {"metadata": spec["template"]["metadata"], "spec": {**kept, "containers": [container]}}
    return {
        "metadata": {key: cronjob["metadata"][key] for key in ("name", "annotations")},
        "spec": {"jobTemplate": {"metadata": {}, "spec": {**spec, "template": template}}},
    }
