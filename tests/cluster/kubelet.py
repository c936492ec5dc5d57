"""The kubelets of all nodes: start bound pods, report their status, terminate deleted pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.cluster.clock import Clock, timestamp
from tests.cluster.containers import Unready, command, environment, mounts
from tests.cluster.events import record
from tests.cluster.nodes import alive, set_condition
from tests.cluster.processes import Prepared, Process, ProcessRun
from tests.cluster.scripts import Exit, Script, ScriptedRun
from tests.cluster.store import Object, Store

Play = Callable[[Object], Script | Process]
Run = ScriptedRun | ProcessRun


class Kubelet:
    """Starts each pod once, as the script or process that `play` returns for it."""

    def __init__(self, store: Store, clock: Clock, folder: Path, wake: Callable[[], None]) -> None:
        self.play: Play = lambda pod: Script()
        self.missing_images: set[str] = set()
        self.pythons: dict[str, str] = {}
        """Image → the Python interpreter that replaces it."""
        self.variables: Callable[[Object, Path], dict[str, str]] = lambda pod, folder: {}
        """Additional environment of a real pod. The second argument is a folder for its files."""
        self.runs: dict[str, Run] = {}
        self._store, self._clock, self._folder, self._wake = store, clock, folder, wake
        self._addresses = 0
        self._done: set[tuple[str, str]] = set()

    def sync(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in self._store.list("nodes")}
        for pod in self._store.list("pods"):
            uid, name = pod["metadata"]["uid"], pod["spec"].get("nodeName")
            run = self.runs.get(uid)
            if name not in nodes or not alive(nodes[name]):
                if run:
                    run.kill()  # the node has no power: nothing runs, and nothing is reported
                continue
            ended = pod["status"]["phase"] in ("Succeeded", "Failed")
            leaving = "deletionTimestamp" in pod["metadata"]
            if run and not ended:
                if leaving:
                    self._stop(pod, run)
                how = run.poll()
                if how:
                    self._ended(pod, how)
                    ended = True
            elif not ended and leaving:
                self._store.edit("pods", pod, lambda new: new["status"].update(phase="Failed"), status=True)
                ended = True
            elif not ended:
                self._begin(pod)
            if ended and leaving:
                self._store.delete("pods", pod, grace_s=0)

    def close(self) -> None:
        for run in self.runs.values():
            run.kill()

    def log(self, pod: Object) -> str:
        run = self.runs.get(pod["metadata"]["uid"])
        return run.log() if run else ""

    def _begin(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if "podIP" not in pod["status"]:
            self._addresses += 1
            address = f"127.1.{self._addresses // 250}.{self._addresses % 250 + 1}"
            pod["status"] |= {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1"}
        folder = self._folder / uid
        (folder / "home").mkdir(parents=True, exist_ok=True)
        try:
            prepared = [
                self._prepare(pod, each, folder)
                for each in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
            ]
        except Unready as problem:
            self._waiting(pod, problem)
            return
        script = self.play(pod)
        if isinstance(script, Script):
            self.runs[uid] = ScriptedRun(script, uid, self._clock)
        else:
            more = self.variables(pod, folder) | script.env
            prepared = [replace(each, env=each.env | more) for each in prepared]
            python = self.pythons.get(pod["spec"]["containers"][0]["image"], "python")
            self.runs[uid] = ProcessRun(uid, folder, prepared, python, self._wake)
        self._running(pod)

    def _prepare(self, pod: Object, container: Object, folder: Path) -> Prepared:
        placed = mounts(self._store, pod, container, folder)
        if container["image"] in self.missing_images:
            back_off = self._clock.due((pod["metadata"]["uid"], "image"), 10)
            back_off_message = f'Back-off pulling image "{container["image"]}"'
            failed = f'failed to pull and unpack image "{container["image"]}": not found'
            raise Unready("ImagePullBackOff", back_off_message) if back_off else Unready("ErrImagePull", failed)
        variables = environment(self._store, pod, container, placed)
        return Prepared(container, command(container, variables, placed), variables)

    def _stop(self, pod: Object, run: Run) -> None:
        uid, grace_s = pod["metadata"]["uid"], pod["metadata"].get("deletionGracePeriodSeconds", 0)
        if isinstance(run, ProcessRun):
            grace_s *= self._clock.speed  # processes run in real time
        if self._first(pod, "sigterm"):
            run.terminate()
        if self._clock.due((uid, "grace"), grace_s):
            run.kill()

    def _first(self, pod: Object, what: str) -> bool:
        """Whether `what` happens to this pod for the first time."""
        before = len(self._done)
        self._done.add((pod["metadata"]["uid"], what))
        return len(self._done) > before

    def _waiting(self, pod: Object, problem: Unready) -> None:
        if problem.reason == "ContainerCreating" and self._first(pod, "mount"):
            record(self._store, pod, True, "FailedMount", f"MountVolume.SetUp failed: {problem.message}", "kubelet")
        waiting: dict[str, Any] = {"reason": problem.reason}
        if problem.reason != "ContainerCreating":
            waiting["message"] = problem.message
        self._write(pod, "Pending", {"waiting": waiting})

    def _running(self, pod: Object) -> None:
        self._write(pod, "Running", {"running": {"startedAt": timestamp()}})

    def _ended(self, pod: Object, how: Exit) -> None:
        reason = how.reason or ("Error" if how.code else "Completed")
        state: dict[str, Any] = {"exitCode": how.code, "reason": reason, "finishedAt": timestamp()}
        if how.message:
            state["message"] = how.message
        self._write(pod, "Failed" if how.code else "Succeeded", {"terminated": state})

    def _write(self, pod: Object, phase: str, state: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        running = phase == "Running"
        status = {"name": container["name"], "image": container["image"], "restartCount": 0, "ready": running, "state": state}

        def write(new: Object) -> None:
            new["status"] |= {name: pod["status"][name] for name in ("podIP", "podIPs", "hostIP") if name in pod["status"]}
            new["status"] |= {"phase": phase, "containerStatuses": [status]}
            new["status"].setdefault("startTime", timestamp())
            for kind in ("Initialized", "ContainersReady", "Ready"):
                set_condition(new, kind, "True" if running or kind == "Initialized" else "False")

        self._store.edit("pods", pod, write, status=True)
