"""Single decisions: what ends a chain, what is tried again and when, what is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adainf.kubernetes.controller.actions import Create, Finish, Mirror, Release, Tell
from adainf.kubernetes.controller.reconcile import Patience, decide
from adainf.kubernetes.controller.state import Observed, Pod, Record
from tests.kubernetes.controller.seen import ALLOWED, NOW, TASKS, attempt, observed

FAILED = {"state": "failed", "since": NOW - 1000, "reason": "BackoffLimitExceeded", "message": "too many"}


def created(seen: Observed) -> list[str]:
    return [f"{a.task}#{a.attempt}" for a in decide(seen, Patience()) if isinstance(a, Create)]


def end(seen: Observed) -> Finish | None:
    return next((a for a in decide(seen, Patience()) if isinstance(a, Finish)), None)


def told(seen: Observed) -> dict[str, str]:
    return {a.reason: a.note for a in decide(seen, Patience()) if isinstance(a, Tell)}


def test_branches_run_at_once_and_joins_wait() -> None:
    assert created(observed()) == ["ingest#1"]
    assert sorted(created(observed(done="ingest"))) == ["fit#1", "pretrain.none#1"]
    assert created(observed(done="ingest fit")) == ["pretrain.none#1"]
    assert created(observed(done="ingest fit pretrain.none")) == ["evaluate#1"]


def test_the_next_stage_waits_for_the_nodes_of_the_last() -> None:
    done = {"done": "ingest fit pretrain.none"}
    assert created(observed(attempt("fit"), **done)) == []
    going = attempt("fit", state="ending", reason="SuccessCriteriaMet", since=NOW - 89)
    assert created(observed(going, **done)) == []
    assert created(observed(replace(going, since=NOW - 91), **done)) == ["evaluate#1"], "a lost node holds nobody up"


def test_all_done_is_the_end() -> None:
    assert end(observed(done=" ".join(TASKS))) == Finish(0, "every stage is done")


@pytest.mark.parametrize(("code", "exit_code"), [(64, 64), (65, 65)])
def test_permanent_causes_end_the_chain_and_free_the_nodes(code: int, exit_code: int) -> None:
    failed = attempt("fit", **FAILED)
    records = {failed.job: (Record(75, "stopped"), Record(code, "the recipe asks for a cat"))}
    other = attempt("pretrain.none")
    actions = decide(observed(failed, other, done="ingest", records=records), Patience())
    assert actions[-1] == Finish(exit_code, f"fit failed for good in attempt 1 ({failed.job}): the recipe asks for a cat")
    assert Release(other.job) in actions


def test_the_exit_code_in_the_condition_is_enough() -> None:
    message = "Container fit for pod ns/x-0-abc failed with exit code 64 matching FailJob rule at index 1"
    failed = attempt("fit", **{**FAILED, "reason": "PodFailurePolicy", "message": message})
    ended = end(observed(failed, done="ingest"))
    assert ended is not None
    assert ended.code == 64


def test_backoff_doubles_without_progress_and_ends() -> None:
    def wait_s(barren: int) -> float:
        attempts = [attempt("ingest", n + 1, **{**FAILED, "since": NOW}) for n in range(barren)]
        return next(s for s in range(1000) if created(observed(*attempts, now=NOW + s)))

    assert [round(wait_s(n) / (10 * 2 ** (n - 1)), 0) for n in range(1, ALLOWED)] == [1, 1]
    exhausted = end(observed(*(attempt("ingest", n + 1, **FAILED) for n in range(ALLOWED))))
    assert exhausted is not None
    assert (exhausted.code, "the last of 3 in a row without progress" in exhausted.sentence) == (65, True)


def test_an_attempt_with_progress_does_not_count() -> None:
    attempts = [attempt("ingest", n, **FAILED, started_with=f"c{n}") for n in range(1, 9)]
    assert created(observed(*attempts, tokens={"ingest": "c9"})) == ["ingest#9"]
    assert created(observed(*attempts, tokens={"ingest": "c8"})) == ["ingest#9"]


@pytest.mark.parametrize(("steps", "permanent"), [((40, 40), True), ((40, 41), False)])
def test_the_same_failure_at_the_same_step_twice_is_permanent(steps: tuple[int, int], permanent: bool) -> None:
    attempts = [attempt("ingest", n, **FAILED) for n in (1, 2)]
    records = {one.job: (Record(1, "the loss is NaN", step),) for one, step in zip(attempts, steps, strict=True)}
    assert (end(observed(*attempts, records=records)) is not None) == permanent


@pytest.mark.parametrize("code", [75, 137])
def test_preemption_twice_is_not_permanent(code: int) -> None:
    attempts = [
        attempt("ingest", n, **{**FAILED, "reason": "PodFailurePolicy", "message": "Pod has condition x"}) for n in (1, 2)
    ]
    records = {one.job: (Record(code, "stopped", 7),) for one in attempts}
    assert created(observed(*attempts, records=records)) == ["ingest#3"]


def test_complete_without_artifacts_is_a_failure() -> None:
    seen = observed(attempt("ingest", state="complete", since=NOW - 1000, reason="CompletionsReached"))
    assert "not all of its artifacts" in told(seen)["AttemptFailed"]
    assert created(seen) == ["ingest#2"]


def test_complete_for_a_recipe_that_asked_for_less_is_none() -> None:
    seen = observed(attempt("ingest", state="complete", since=NOW, recipe_sha256="before"))
    assert created(seen) == ["ingest#2"]
    assert told(seen) == {}


def test_a_changed_template_gives_a_new_budget() -> None:
    attempts = [attempt("ingest", n + 1, **FAILED, template_hash="before") for n in range(ALLOWED)]
    assert created(observed(*attempts)) == [f"ingest#{ALLOWED + 1}"]


def test_superseded_waits_for_the_other_start() -> None:
    failed = attempt("ingest", **{**FAILED, "since": NOW})
    records = {failed.job: (Record(66, "another start has taken over"),)}
    assert created(observed(failed, records=records, now=NOW + 290)) == []
    assert created(observed(failed, records=records, now=NOW + 320)) == ["ingest#2"]


def test_drift_is_told_and_changes_nothing_that_runs() -> None:
    seen = observed(attempt("ingest", template_hash="before", recipe_sha256="before"))
    assert set(told(seen)) == {"TemplateChanged", "RecipeChanged"}
    assert all(isinstance(action, Tell) for action in decide(seen, Patience()))


def test_progress_is_mirrored_once() -> None:
    seen = observed(attempt("ingest"), progress={attempt("ingest").job: "5/10"})
    assert decide(seen, Patience()) == [Mirror(attempt("ingest").job, "5/10")]
    assert decide(replace(seen, attempts=(attempt("ingest", progress="5/10"),)), Patience()) == []


def pod(**fields: object) -> Pod:
    given = {"name": "p-0", "job": attempt("ingest").job, "index": 0, "phase": "Pending", "created": NOW - 40}
    return Pod(**{**given, **fields})


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "Unschedulable"])
def test_what_keeps_a_pod_from_starting_is_told(reason: str) -> None:
    seen = observed(attempt("ingest"), pods=(pod(waiting=reason, message="because"),))
    assert told(seen)[reason].startswith("pod p-0 does not start: because; ")
    assert not any(isinstance(action, Release) for action in decide(seen, Patience()))


def test_quota_is_told_and_released_in_the_end() -> None:
    one = attempt("ingest", created=NOW - 60)
    seen = observed(one, refused={one.job: "exceeded quota: gpus"})
    assert "exceeded quota" in told(seen)["PodsRefused"]
    assert Release(one.job) not in decide(seen, Patience())
    assert Release(one.job) in decide(replace(seen, now=NOW + 900), Patience())


def test_a_gang_that_does_not_start_is_released_once() -> None:
    one = attempt("ingest", gang=True, pods_wanted=2)
    late = observed(one, pods=(pod(phase="Running"), pod(name="p-1", index=1, created=NOW - 901)))
    assert Release(one.job) in decide(late, Patience())
    assert "StartTimeout" in told(late)
    assert decide(replace(late, attempts=(replace(one, released=True),)), Patience()) == []


@pytest.mark.parametrize(("gang", "released"), [(True, True), (False, False)])
def test_a_pod_on_a_lost_node(gang: bool, released: bool) -> None:
    one = attempt("ingest", gang=gang)
    stuck = pod(phase="Running", node="n7", deleted=NOW - 61)
    seen = observed(one, pods=(stuck, pod(name="p-1", phase="Running")))
    assert "node n7" in told(seen)["PodStuck"]
    assert (Release(one.job) in decide(seen, Patience())) == released
    assert Release(one.job) in decide(replace(seen, pods=(stuck,)), Patience())
    assert decide(replace(seen, now=NOW - 2), Patience()) == []


def test_what_is_wrong_ends_the_chain() -> None:
    actions = decide(observed(attempt("ingest"), wrong="real/ was written by another recipe"), Patience())
    assert actions == [Release(attempt("ingest").job), Finish(64, "real/ was written by another recipe")]
