"""No action stops a pod that makes progress, except for its own failure, its gang's failure, or the user's request.

The complete controller on random histories of the simulated cluster. `Simulation` checks the property at each action.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.kubernetes.controller.simulation import NAMESPACE, OWNER, SHORT, START_TIMEOUT_S, Simulation

STEPS = 25
IMAGE = "adainf-train-cpu:0.1.0"
RECIPES = [SHORT, f"{SHORT}# changed\n", f"{SHORT}armz: [none]\n", SHORT.replace("kind: digits", "kind: cifar10"), "{"]
"""The first two are equal but for their bytes. The fourth conflicts with a run that has real images."""


class History(RuleBasedStateMachine):
    """The cluster and the user's input change at random. Time passes, and the controller runs or is killed."""

    @initialize(waits_s=st.lists(st.sampled_from([5, 40, 400, START_TIMEOUT_S + 30]), min_size=STEPS, max_size=STEPS))
    def start(self, waits_s: list[int]) -> None:
        self.patch = pytest.MonkeyPatch()
        self.folder = tempfile.TemporaryDirectory()
        self.sim = Simulation(Path(self.folder.name), self.patch)
        self.saved, self.waits_s = 0, waits_s
        for _ in range(2):  # most histories should not stay in the first task
            self.sim.pass_time(12)
            for job in self.sim.attempts():
                if self.sim.progressing(job):
                    self.sim.finish(job)

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        try:
            self.comes_to_an_end()
        finally:
            self.patch.undo()
            self.folder.cleanup()

    def comes_to_an_end(self) -> None:
        """Once everything is in order, the pipeline ends: nothing is left waiting for ever."""
        self.recipe(SHORT)
        self.templates_are_restored()
        self.quotas_are_removed()
        self.image_is_missing(False)
        self.sim.nodes.add("new", {"pods": "20"})
        for _ in range(25):
            self.sim.pass_time(400)
            for job in self.sim.attempts():
                if self.sim.progressing(job):
                    self.sim.finish(job)
            if self.sim.end is not None:
                return
        raise AssertionError("the pipeline does not end")

    def runs(self) -> bool:
        return self.sim.end is None

    def has_pods(self) -> bool:
        return self.sim.end is None and bool(self.sim.running())

    def has_attempts(self) -> bool:
        return self.sim.end is None and any(map(self.sim.progressing, self.sim.attempts()))

    def pick(self, data: st.DataObject, things: list[Any]) -> Any:
        return data.draw(st.sampled_from(sorted(things, key=lambda each: str(each["metadata"]["name"])[:-5])))

    @invariant()
    def time_passes(self) -> None:
        """After each change."""
        if self.waits_s and self.runs():
            self.sim.pass_time(self.waits_s.pop())

    @rule()
    def nothing_happens(self) -> None: ...

    @precondition(runs)
    @rule(skew_s=st.sampled_from([0, 1200, -5000, 90_000]))
    def controller_restarts(self, skew_s: int) -> None:
        """On another node, whose clock may be wrong."""
        self.sim.node_time.skew_s = skew_s
        self.sim.restart_controller()
        self.sim.step()

    @precondition(has_attempts)
    @rule(data=st.data())
    def finishes(self, data: st.DataObject) -> None:
        self.sim.finish(self.pick(data, [job for job in self.sim.attempts() if self.sim.progressing(job)]))
        self.sim.sync()

    @precondition(has_attempts)
    @rule()
    def saves(self) -> None:
        self.saved += 1
        self.sim.run.store.put(f"generator/checkpoints/{self.saved:08}.safetensors", b"")

    @precondition(has_pods)
    @rule(data=st.data(), code=st.sampled_from([1, 75, 66, 137]))
    def fails(self, data: st.DataObject, code: int) -> None:
        self.sim.fail(self.pick(data, self.sim.running()), code)
        self.sim.sync()

    @precondition(has_pods)
    @rule(data=st.data())
    def preempts(self, data: st.DataObject) -> None:
        self.sim.preempt(self.pick(data, self.sim.running()))
        self.sim.sync()

    @precondition(has_attempts)
    @rule(data=st.data())
    def user_deletes_an_attempt(self, data: st.DataObject) -> None:
        self.sim.store.delete("jobs", self.pick(data, self.sim.attempts()))
        self.sim.sync()

    @rule(cordoned=st.booleans())
    def nodes_are_cordoned(self, cordoned: bool) -> None:
        self.sim.cordon(cordoned)

    @precondition(has_pods)
    @rule(data=st.data(), how=st.sampled_from(["nodes", "image", "quota"]))
    def a_preempted_pod_waits(self, data: st.DataObject, how: str) -> None:
        """The others of its attempt go on, if it has others."""
        if how == "nodes":
            self.nodes_are_cordoned(True)
        elif how == "image":
            self.image_is_missing(True)
        else:
            self.quota("pods", len(self.sim.running()) - 1)
        self.preempts(data)

    @precondition(has_pods)
    @rule(data=st.data())
    def node_dies(self, data: st.DataObject) -> None:
        """Another one takes its place."""
        self.sim.node(self.pick(data, self.sim.running())["spec"]["nodeName"]).kill()
        self.sim.add_node()
        self.sim.sync()

    @rule(kind=st.sampled_from(["pods", "count/jobs.batch"]), number=st.integers(0, 4))
    def quota(self, kind: str, number: int) -> None:
        self.quotas_are_removed()
        self.sim.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {kind: str(number)}}})

    @rule()
    def quotas_are_removed(self) -> None:
        for quota in self.sim.store.list("resourcequotas"):
            self.sim.store.delete("resourcequotas", quota)

    @rule(missing=st.booleans())
    def image_is_missing(self, missing: bool) -> None:
        self.sim.kubelet.missing_images = {IMAGE} if missing else set()

    @rule(text=st.sampled_from(RECIPES), copies=st.booleans())
    def recipe(self, text: str, copies: bool = True) -> None:
        """`copies`: whether those in the run stay, from which a new process takes the last valid one."""
        self.sim.recipe.write_text(text)
        for info in [] if copies else list(self.sim.run.store.list("recipes/")):
            self.sim.run.store.delete(info.key)
        self.sim.step()

    @rule(
        name=st.sampled_from(["fit", "generate", "pretrain", "evaluate", "report"]), how=st.sampled_from(["gone", "bad", "new"])
    )
    def template(self, name: str, how: str) -> None:
        cronjob = self.sim.store.get("cronjobs", NAMESPACE, f"{OWNER}-{name}")
        if cronjob is None:
            return
        if how == "gone":
            self.sim.store.delete("cronjobs", cronjob)
        elif how == "bad":
            cronjob["metadata"]["annotations"]["adainf.dev/start-timeout"] = "soon"
            self.sim.store.replace("cronjobs", cronjob)
        else:
            cronjob["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] = 10**6
            self.sim.store.replace("cronjobs", cronjob)
        self.sim.step()

    @rule()
    def templates_are_restored(self) -> None:
        for each in self.sim.store.list("cronjobs"):
            self.sim.store.delete("cronjobs", each)
        for each in self.sim.templates.values():
            self.sim.create("cronjobs", each)

    @precondition(has_attempts)
    @rule(data=st.data(), age_s=st.sampled_from([0, 100, 500, 3000]))
    def stale_event(self, data: st.DataObject, age_s: int) -> None:
        self.sim.stale_event(self.pick(data, self.sim.attempts()), age_s)


HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
TestHistory = History.TestCase
# The same histories in each run: the slow test looks for new ones.
TestHistory.settings = settings(
    max_examples=8, stateful_step_count=STEPS, derandomize=True, deadline=None, suppress_health_check=HEALTH
)


@pytest.mark.slow
def test_many_histories() -> None:
    many = settings(max_examples=300, stateful_step_count=STEPS, deadline=None, suppress_health_check=HEALTH)
    run_state_machine_as_test(History, settings=many)
