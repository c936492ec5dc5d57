"""Invariants of the controller over any history of a cluster, with the controller killed after any of its calls."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adainf.errors import BAD_INPUT, OK, STAGE_FAILED
from adainf.kubernetes.controller.actions import Action, Create, Finish, Terminate
from adainf.kubernetes.controller.reconcile import Timeouts, reconcile
from adainf.kubernetes.controller.state import Attempt, ClusterState, Pod
from adainf.kubernetes.termination_record import TerminationRecord
from tests.kubernetes.controller.states import AFTER, ALLOWED, NOW, TASKS, attempt, cluster_state

TIMEOUTS = Timeouts()
CODES = [1, 64, 65, 66, 75, 137, None]
"""None: a pod was disrupted."""


@dataclass
class Cluster:
    """A model of the cluster and the store."""

    now: float = NOW
    attempts: dict[str, Attempt] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    records: dict[str, tuple[TerminationRecord, ...]] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    done: set[str] = field(default_factory=set)
    without_progress: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    """Consecutive attempts that ended without saving anything, counted by the model."""
    end: Finish | None = None

    def state(self) -> ClusterState:
        return cluster_state(
            *self.attempts.values(),
            now=self.now,
            done=" ".join(self.done),
            pods=tuple(self.pods.values()),
            records=self.records,
            tokens={name: f"c{step}" for name, step in self.saved.items()},
        )

    def reconcile(self) -> list[Action]:
        return reconcile(self.state(), TIMEOUTS)

    def apply(self, action: Action) -> None:
        if isinstance(action, Create):
            self.check(action)
            started = {"created": self.now, "since": self.now, "started_with": action.token}
            new = attempt(action.task, action.attempt, **started)
            self.attempts[new.job] = new
        elif isinstance(action, Terminate):
            self.attempts[action.job] = replace(self.attempts[action.job], stop_requested=True)
        elif isinstance(action, Finish):
            assert not self.active(), "a stage that could continue is left without the controller"
            self.end = action

    def check(self, action: Create) -> None:
        """Preconditions of each new attempt."""
        others = [other for other in self.attempts.values() if other.task == action.task]
        assert action.attempt == len(others) + 1
        assert action.task not in self.done
        assert self.done.issuperset(AFTER[action.task]), "started before its inputs existed"
        for other in others:
            assert other.state != "active", "two attempts at once"
            if other.state == "ending":
                left = [pod.deleted or float("inf") for pod in self.pods.values() if pod.job == other.job]
                lost_at = min(max(left, default=float("inf")), other.since + other.grace_s)
                assert self.now >= lost_at + TIMEOUTS.termination_timeout_s, "the previous attempt may still run"
        assert self.without_progress[action.task] < ALLOWED
        assert action.token == f"c{self.saved[action.task]}"

    def ends(self, job: str, state: Literal["ending", "failed", "complete"], reason: str, message: str = "") -> None:
        before = self.attempts[job]
        self.attempts[job] = replace(before, state=state, since=self.now, reason=reason, message=message)
        if before.state != "active":
            return
        if f"c{self.saved[before.task]}" != before.started_with:
            self.without_progress[before.task] = 0
        elif "exit code 66" not in message:
            self.without_progress[before.task] += 1

    def fails(self, job: str, code: int | None, done: int) -> None:
        if code is None:
            self.ends(job, "ending", "PodFailurePolicy", "Pod x has condition DisruptionTarget matching FailJob rule")
        else:
            self.ends(
                job, "ending", "PodFailurePolicy", f"Container x for pod y failed with exit code {code} matching FailJob rule"
            )
            self.records[job] = (TerminationRecord(code, f"ended with {code}", done),)

    def active(self) -> list[str]:
        return [job for job, one in self.attempts.items() if one.state == "active"]

    def ending(self) -> list[str]:
        return [job for job, one in self.attempts.items() if one.state == "ending"]


class Pipeline(RuleBasedStateMachine):
    """The cluster changes at random; the controller runs from time to time, and can be killed between two actions."""

    @initialize()
    def start(self) -> None:
        self.cluster = Cluster()
        self.last = 0.0

    def running(self) -> bool:
        return self.cluster.end is None

    def pick(self, data: st.DataObject, jobs: list[str]) -> str:
        return data.draw(st.sampled_from(sorted(jobs)))

    @precondition(running)
    @rule(killed_after=st.integers(0, 4) | st.none())
    def step(self, killed_after: int | None) -> None:
        for action in self.cluster.reconcile()[:killed_after]:
            self.cluster.apply(action)

    @rule(seconds=st.sampled_from([1, 12, 60, 400, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += seconds
        if self.running():
            self.step(None)

    @precondition(lambda self: self.running() and self.cluster.active())
    @rule(data=st.data())
    def saves(self, data: st.DataObject) -> None:
        self.cluster.saved[self.cluster.attempts[self.pick(data, self.cluster.active())].task] += 1

    @precondition(lambda self: self.running() and self.cluster.active())
    @rule(data=st.data(), complete=st.booleans(), gone=st.booleans())
    def ends_well(self, data: st.DataObject, complete: bool, gone: bool) -> None:
        job = self.pick(data, self.cluster.active())
        if complete:
            self.cluster.done.add(self.cluster.attempts[job].task)
            self.cluster.saved[self.cluster.attempts[job].task] += 1
        self.cluster.ends(job, "complete" if gone else "ending", "" if gone else "SuccessCriteriaMet")

    @precondition(lambda self: self.running() and self.cluster.active())
    @rule(data=st.data(), code=st.sampled_from(CODES), done=st.integers(0, 1))
    def fails(self, data: st.DataObject, code: int | None, done: int) -> None:
        self.cluster.fails(self.pick(data, self.cluster.active()), code, done)

    @precondition(lambda self: self.running() and self.cluster.ending())
    @rule(data=st.data())
    def pods_are_gone(self, data: st.DataObject) -> None:
        job = self.pick(data, self.cluster.ending())
        one = self.cluster.attempts[job]
        self.cluster.ends(job, "complete" if one.reason == "SuccessCriteriaMet" else "failed", one.reason, one.message)

    @precondition(lambda self: self.running() and self.cluster.active())
    @rule(data=st.data(), lost=st.booleans())
    def pod_hangs(self, data: st.DataObject, lost: bool) -> None:
        """A pod does not start, or its node is lost."""
        job, now = self.pick(data, self.cluster.active()), self.cluster.now
        self.cluster.pods[job] = Pod(f"{job}-0", job, 0, "Running" if lost else "Pending", now, now + 30 if lost else None)

    @precondition(running)
    @rule()
    def deadlines_act(self) -> None:
        for job in self.cluster.active():
            if self.cluster.attempts[job].stop_requested:
                self.cluster.ends(job, "ending", "DeadlineExceeded")

    @invariant()
    def a_kill_changes_nothing(self) -> None:
        """Killed after any of its calls and restarted, the controller reaches the state it would have reached."""
        if not self.running():
            return
        actions = self.cluster.reconcile()
        assert actions == self.cluster.reconcile()
        full = copy.deepcopy(self.cluster)
        for action in actions:
            full.apply(action)
        for killed_after in range(len(actions)):
            cut = copy.deepcopy(self.cluster)
            for action in actions[:killed_after]:
                cut.apply(action)
            for action in cut.reconcile():
                cut.apply(action)
            assert (cut.attempts, cut.end) == (full.attempts, full.end)

    @invariant()
    def the_end_is_true(self) -> None:
        end = self.cluster.end
        if end is None:
            return
        codes = {record.exit_code for records in self.cluster.records.values() for record in records}
        if end.code == OK:
            assert self.cluster.done == set(TASKS)
        elif end.code == BAD_INPUT:
            assert BAD_INPUT in codes
        else:
            assert end.code == STAGE_FAILED
            assert max(self.cluster.without_progress.values()) >= ALLOWED or 65 in codes or "at the same step" in end.message
        assert all(self.cluster.attempts[job].stop_requested for job in self.cluster.active() if end.code), (
            "an attempt still occupies its nodes"
        )

    def teardown(self) -> None:
        """If every later attempt fails without progress, the pipeline ends soon."""
        if not hasattr(self, "cluster"):
            return
        for _ in range(2 * (ALLOWED + 2)):
            for action in self.cluster.reconcile() if self.running() else []:
                self.cluster.apply(action)
            for job in self.cluster.active():
                self.cluster.fails(job, 137, done=len(self.cluster.attempts))
            for job in self.cluster.ending():
                self.cluster.ends(job, "failed", "BackoffLimitExceeded", self.cluster.attempts[job].message)
            self.cluster.now += 1000
        assert self.cluster.end is not None


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
