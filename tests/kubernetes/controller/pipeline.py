"""jobs/adainf.yaml on a simulated cluster: the controller is a real process, stages are scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from adainf.kubernetes.render import render
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, request, tasks
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.records import Manifest, Request
from adainf.recipe import Recipe
from tests.cluster import Cluster, Exit, Process, Script
from tests.cluster.store import Object

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "demo.yaml"
INDEX = "batch.kubernetes.io/job-completion-index"

Play = Callable[[Object], Script | None]
FOREVER = Script(after_s=float("inf"), on_sigterm=Exit(75))


class Pipeline:
    """Applies jobs/adainf.yaml with the demo recipe and a run in a folder. `play` can replace the script of a stage's pod."""

    def __init__(self, cluster: Cluster, folder: Path, play: Play = lambda pod: None, name: str = "adainf") -> None:
        self.cluster, self.play, self.name = cluster, play, name
        self.run = Run(str(folder / "run"))
        self.recipe = RECIPE
        self.env = {"ADAINF_BACKOFF_S": "0.2", "ADAINF_STUCK_S": "1"}
        """Environment of the controller."""
        self.images: dict[str, str] = {}
        """CronJob → image of its stage. Default: the manifest's."""
        self.grace_s: int | None = None
        """Grace period of stage pods. None: the manifest's."""
        self.start_timeout_s: int | None = None
        """Start time-out of stages. None: the manifest's."""
        self.started: list[str] = []
        """Tasks in the order in which their pods started."""
        cluster.on_pod(self.plays)

    def apply(self, check: bool = True) -> str:
        done = self.cluster.kubectl("apply", "-f", "-", stdin=self.text(), check=check)
        return done.stdout + done.stderr

    def text(self) -> str:
        text = (ROOT / "jobs" / "adainf.yaml").read_text() if self.name == "adainf" else render(name=self.name)
        objects = list(yaml.safe_load_all(text))
        for each in objects:
            match each["metadata"]["name"].removeprefix(self.name):
                case "-recipe":
                    each["data"] = {"recipe.yaml": self.recipe.read_text()}
                case "-store":
                    each["data"] = {"ADAINF_RUN": self.run.locate("")}
            if each["kind"] == "CronJob":
                pod = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
                pod["containers"][0]["image"] = self.images.get(each["metadata"]["name"], pod["containers"][0]["image"])
                if self.start_timeout_s is not None:
                    each["metadata"]["annotations"]["adainf.dev/start-timeout"] = str(self.start_timeout_s)
                if self.grace_s is not None:
                    pod["terminationGracePeriodSeconds"] = self.grace_s
        return yaml.safe_dump_all(objects)

    def end(self, timeout_s: float = 60) -> Object:
        return self.cluster.until_ended(self.name, timeout_s)

    def jobs(self) -> list[str]:
        """TASK-ATTEMPT of each stage Job that exists."""
        labels = [job["metadata"]["labels"] for job in self.cluster.store.list("jobs", self.cluster.namespace)]
        mine = [label for label in labels if label.get("adainf.dev/run") == self.name]
        return sorted(f"{task(label)}-{label['adainf.dev/attempt']}" for label in mine)

    def pod(self, name: str, index: int = 0) -> Object:
        """A pod of a task, once it is running."""

        def look() -> Object | None:
            for pod in self.cluster.pods():
                label = pod["metadata"]["labels"]
                if label["app.kubernetes.io/instance"] != self.name:
                    continue
                right = task(label) == name and label.get(INDEX, "0") == str(index) and pod["status"]["phase"] == "Running"
                if right and "deletionTimestamp" not in pod["metadata"]:
                    return pod
            return None

        found = self.cluster.until(look, 30)
        assert found
        return found

    def finish(self, pod: Object) -> None:
        """Commit the artifacts of a pod's task and end the pod with exit code 0."""
        self.commit(task(pod["metadata"]["labels"]))
        self.cluster.finish(pod, Exit(0))

    def kill_controller(self) -> None:
        """SIGKILL."""
        self.cluster.kubelet.runs[self.pod("controller")["metadata"]["uid"]].kill()

    def log(self) -> str:
        """Log of all processes of the controller."""
        return "".join(self.cluster.kubelet.log(pod) for pod in self.cluster.pods(self.name))

    def notes(self) -> dict[str, str]:
        """Reason → latest note of the controller's Events on job/adainf."""
        return {event["reason"]: event["message"] for event in self.cluster.events(self.name)}

    def record(self, pod: Object, code: int, reason: str, done: int | None = None) -> None:
        """Write the termination record of a pod, as its launcher does."""
        label = pod["metadata"]["labels"]
        written: dict[str, Any] = {"exit_code": code, "reason": reason, "done": done, "total": None, "lines": []}
        self.run.store.put(f"logs/pods/{label['job-name']}-{label.get(INDEX, '0')}.json", json.dumps(written).encode())

    def commit(self, name: str) -> None:
        """Commit a task's artifacts: empty, but matching the recipe."""
        commit(self.run, load_recipe(self.recipe), name)

    def plays(self, pod: Object) -> Script | Process:
        """What a pod of this run does."""
        label = pod["metadata"]["labels"]
        name = task(label)
        if name == "controller":
            return Process(self.env)
        self.started.append(name)
        script = self.play(pod)
        if script:
            return script
        if label.get(INDEX, "0") == "0":
            return Script(then=lambda: self.commit(name))
        return FOREVER if "adainf.dev/gang" in label else Script()


def commit(run: Run, recipe: Recipe, name: str) -> None:
    """Commit a task's artifacts: empty, but matching the recipe."""
    for artifact in tasks(recipe)[name]:
        if run.find(artifact):
            continue
        before = list(build_graph(recipe)) if artifact == "report" else build_graph(recipe)[artifact].inputs
        inputs = {each: made for each in before if (made := run.find(each))}
        digests = {each: made.digest for each, made in inputs.items()}
        report = Request(stage="report", settings={}, inputs=digests)
        run.commit(artifact, Manifest(request=report if artifact == "report" else request(recipe, artifact, inputs)))


def task(label: dict[str, str]) -> str:
    stage = label.get("adainf.dev/stage", "controller")
    return f"{stage}.{label['adainf.dev/arm']}" if "adainf.dev/arm" in label else stage
