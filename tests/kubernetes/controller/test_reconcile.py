"""Reconcile on single states: what ends the pipeline, what is retried and when, and which Events are emitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adainf.kubernetes.controller.actions import Create, EmitEvent, Finish, RecordProgress, Terminate
from adainf.kubernetes.controller.reconcile import Timeouts, reconcile
from adainf.kubernetes.controller.state import ClusterState, Pod, Problem
from adainf.kubernetes.termination_record import TerminationRecord
from tests.kubernetes.controller.states import ALLOWED, NOW, TASKS, attempt, cluster_state

FAILED: dict[str, Any] = {"state": "failed", "since": NOW - 1000, "reason": "BackoffLimitExceeded", "message": "too many"}


def created(state: ClusterState) -> list[str]:
    return [f"{a.task}#{a.attempt}" for a in reconcile(state, Timeouts()) if isinstance(a, Create)]


def end(state: ClusterState) -> Finish | None:
    return next((a for a in reconcile(state, Timeouts()) if isinstance(a, Finish)), None)


def events(state: ClusterState) -> dict[str, str]:
    return {a.reason: a.note for a in reconcile(state, Timeouts()) if isinstance(a, EmitEvent)}


def test_branches_run_in_parallel_and_joins_wait() -> None:
    assert created(cluster_state()) == ["ingest#1"]
    assert sorted(created(cluster_state(done="ingest"))) == ["fit#1", "pretrain.none#1"]
    assert created(cluster_state(done="ingest fit")) == ["pretrain.none#1"]
    assert created(cluster_state(done="ingest fit pretrain.none")) == ["evaluate#1"]


def test_the_next_stage_waits_for_the_nodes_of_the_last() -> None:
    done = {"done": "ingest fit pretrain.none"}
    assert created(cluster_state(attempt("fit"), **done)) == []
    going = attempt("fit", state="ending", reason="SuccessCriteriaMet", since=NOW - 89)
    assert created(cluster_state(going, **done)) == []
    assert created(cluster_state(replace(going, since=NOW - 91), **done)) == ["evaluate#1"], "a lost node blocks nothing"


def test_it_finishes_when_all_tasks_are_done() -> None:
    assert end(cluster_state(done=" ".join(TASKS))) == Finish(0, "every stage is done")


@pytest.mark.parametrize(("code", "exit_code"), [(64, 64), (65, 65)])
def test_permanent_causes_end_the_pipeline_once_nothing_else_can_run(code: int, exit_code: int) -> None:
    failed = attempt("fit", **FAILED)
    records = {failed.job: (TerminationRecord(75, "stopped"), TerminationRecord(code, "the recipe asks for a cat"))}
    other = attempt("pretrain.none")
    state = cluster_state(failed, other, done="ingest", records=records)
    actions = reconcile(state, Timeouts())
    assert not any(isinstance(action, Terminate | Finish) for action in actions), "a stage that makes progress is stopped"
    message = f"fit failed permanently in attempt 1 ({failed.job}): the recipe asks for a cat"
    assert events(state)["TaskFailed"].startswith(message)
    ended = replace(state, attempts=(failed, replace(other, state="complete")), done=frozenset({"ingest", "pretrain.none"}))
    assert reconcile(ended, Timeouts())[-1] == Finish(exit_code, message)


def test_the_exit_code_in_the_condition_suffices() -> None:
    message = "Container fit for pod ns/x-0-abc failed with exit code 64 matching FailJob rule at index 1"
    failed = attempt("fit", **{**FAILED, "reason": "PodFailurePolicy", "message": message})
    ended = end(cluster_state(failed, done="ingest pretrain.none"))
    assert ended is not None
    assert ended.code == 64


def test_backoff_doubles_without_progress_and_ends() -> None:
    def wait_s(without_progress: int) -> float:
        attempts = [attempt("ingest", n + 1, **{**FAILED, "since": NOW}) for n in range(without_progress)]
        return next(s for s in range(1000) if created(cluster_state(*attempts, now=NOW + s)))

    assert [round(wait_s(n) / (10 * 2 ** (n - 1)), 0) for n in range(1, ALLOWED)] == [1, 1]
    exhausted = end(cluster_state(*(attempt("ingest", n + 1, **FAILED) for n in range(ALLOWED))))
    assert exhausted is not None
    assert (exhausted.code, "after 3 attempts without progress" in exhausted.message) == (65, True)


def test_an_attempt_with_progress_does_not_count() -> None:
    attempts = [attempt("ingest", n, **FAILED, started_with=f"c{n}") for n in range(1, 9)]
    assert created(cluster_state(*attempts, tokens={"ingest": "c9"})) == ["ingest#9"]
    assert created(cluster_state(*attempts, tokens={"ingest": "c8"})) == ["ingest#9"]


@pytest.mark.parametrize(("steps", "permanent"), [((40, 40), True), ((40, 41), False)])
def test_the_same_failure_at_the_same_step_twice_is_permanent(steps: tuple[int, int], permanent: bool) -> None:
    attempts = [attempt("ingest", n, **FAILED) for n in (1, 2)]
    records = {one.job: (TerminationRecord(1, "the loss is NaN", step),) for one, step in zip(attempts, steps, strict=True)}
    assert (end(cluster_state(*attempts, records=records)) is not None) == permanent


@pytest.mark.parametrize("code", [75, 137])
def test_preemption_twice_is_not_permanent(code: int) -> None:
    attempts = [
        attempt("ingest", n, **{**FAILED, "reason": "PodFailurePolicy", "message": "Pod has condition x"}) for n in (1, 2)
    ]
    records = {one.job: (TerminationRecord(code, "stopped", 7),) for one in attempts}
    assert created(cluster_state(*attempts, records=records)) == ["ingest#3"]


def test_complete_without_artifacts_is_a_failure() -> None:
    state = cluster_state(attempt("ingest", state="complete", since=NOW - 1000, reason="CompletionsReached"))
    assert "some of its artifacts are not in the run" in events(state)["AttemptFailed"]
    assert created(state) == ["ingest#2"]


def test_complete_for_a_recipe_that_asked_for_less_is_not_a_failure() -> None:
    state = cluster_state(attempt("ingest", state="complete", since=NOW, recipe_sha256="before"))
    assert created(state) == ["ingest#2"]
    assert events(state) == {}


def test_a_changed_template_gives_a_new_budget() -> None:
    attempts = [attempt("ingest", n + 1, **FAILED, template_hash="before") for n in range(ALLOWED)]
    assert created(cluster_state(*attempts)) == [f"ingest#{ALLOWED + 1}"]


def test_superseded_waits_for_the_other_attempt() -> None:
    failed = attempt("ingest", **{**FAILED, "since": NOW})
    records = {failed.job: (TerminationRecord(66, "another attempt has taken over"),)}
    assert created(cluster_state(failed, records=records, now=NOW + 290)) == []
    assert created(cluster_state(failed, records=records, now=NOW + 320)) == ["ingest#2"]


def test_drift_is_reported_and_does_not_change_running_attempts() -> None:
    state = cluster_state(attempt("ingest", template_hash="before", recipe_sha256="before"))
    assert set(events(state)) == {"TemplateChanged", "RecipeChanged"}
    assert all(isinstance(action, EmitEvent) for action in reconcile(state, Timeouts()))


def test_progress_is_recorded_once() -> None:
    state = cluster_state(attempt("ingest"), progress={attempt("ingest").job: "5/10"})
    assert reconcile(state, Timeouts()) == [RecordProgress(attempt("ingest").job, "5/10")]
    assert reconcile(replace(state, attempts=(attempt("ingest", progress="5/10"),)), Timeouts()) == []


def pod(**fields: Any) -> Pod:
    given: dict[str, Any] = {"name": "p-0", "job": attempt("ingest").job, "index": 0, "phase": "Pending", "created": NOW - 40}
    return Pod(**{**given, **fields})


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "Unschedulable"])
def test_a_pod_that_does_not_start_is_reported(reason: str) -> None:
    state = cluster_state(attempt("ingest"), pods=(pod(waiting=reason, message="because"),))
    assert events(state)[reason].startswith("pod p-0 does not start: because; ")
    assert not any(isinstance(action, Terminate) for action in reconcile(state, Timeouts()))


def test_a_quota_is_reported_and_the_attempt_times_out() -> None:
    one = attempt("ingest", created=NOW - 60)
    state = cluster_state(one, create_failures={one.job: "exceeded quota: gpus"})
    assert "exceeded quota" in events(state)["PodCreationFailed"]
    assert Terminate(one.job) not in reconcile(state, Timeouts())
    assert Terminate(one.job) in reconcile(replace(state, now=NOW + 900), Timeouts())


def test_a_gang_that_does_not_start_is_terminated_once() -> None:
    one = attempt("ingest", gang=True, pods_wanted=2)
    late = cluster_state(one, pods=(pod(phase="Running"), pod(name="p-1", index=1, created=NOW - 901)))
    assert Terminate(one.job) in reconcile(late, Timeouts())
    assert "StartTimeout" in events(late)
    assert reconcile(replace(late, attempts=(replace(one, stop_requested=True),)), Timeouts()) == []


@pytest.mark.parametrize(("gang", "terminated"), [(True, True), (False, False)])
def test_a_pod_on_a_lost_node(gang: bool, terminated: bool) -> None:
    one = attempt("ingest", gang=gang)
    stuck = pod(phase="Running", node="n7", deleted=NOW - 61)
    state = cluster_state(one, pods=(stuck, pod(name="p-1", phase="Running")))
    assert "node n7" in events(state)["PodStuckTerminating"]
    assert (Terminate(one.job) in reconcile(state, Timeouts())) == terminated
    assert Terminate(one.job) in reconcile(replace(state, pods=(stuck,)), Timeouts())
    assert reconcile(replace(state, now=NOW - 2), Timeouts()) == []


PROBLEM = Problem("RecipeInvalid", "real/ was written by another recipe", NOW)


def test_bad_input_ends_a_pipeline_in_which_nothing_runs() -> None:
    finish = Finish(64, PROBLEM.message)
    assert reconcile(cluster_state(recipe_problem=PROBLEM), Timeouts()) == [finish]
    assert reconcile(cluster_state(problems={"fit": PROBLEM}), Timeouts()) == [finish]
    running = cluster_state(attempt("ingest"), recipe_problem=PROBLEM)
    assert not any(isinstance(action, Terminate | Finish) for action in reconcile(running, Timeouts()))
    assert "continues with the last valid recipe" in events(running)["RecipeInvalid"]
    complete = replace(running, attempts=(attempt("ingest", state="complete"),), done=frozenset(TASKS))
    assert end(complete) is None, "there is time for a fix"
    assert end(replace(complete, now=NOW + 900)) == finish


def test_a_problem_of_a_task_matters_when_its_attempt_is_due() -> None:
    before = attempt("ingest", state="complete")
    state = cluster_state(before, done="ingest", problems={"fit": PROBLEM}, now=NOW + 1000)
    assert created(state) == ["pretrain.none#1"]
    assert end(state) is None
    assert end(replace(state, done=frozenset({"ingest", "pretrain.none"}))) == Finish(64, PROBLEM.message)
    assert created(replace(state, problems={})) == ["fit#1", "pretrain.none#1"]


def test_a_pending_worker_stops_no_running_one() -> None:
    one = attempt("ingest", pods_wanted=2)
    waits = pod(name="p-1", index=1, created=NOW - 5000, waiting="Unschedulable", message="0/2 nodes")
    state = cluster_state(one, pods=(pod(phase="Running"), waits), worked_at={one.job: NOW})
    assert Terminate(one.job) not in reconcile(state, Timeouts())
    assert "0/2 nodes" in events(state)["Unschedulable"]
    just_ended = replace(state, pods=(pod(phase="Succeeded"), waits), worked_at={one.job: NOW - 10})
    assert Terminate(one.job) not in reconcile(just_ended, Timeouts()), "its node is free for the other since 10 s"
    assert Terminate(one.job) in reconcile(replace(just_ended, now=NOW + 900), Timeouts())
