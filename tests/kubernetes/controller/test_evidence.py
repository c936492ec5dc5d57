"""Evidence for what the controller does: Events by time and attempt, the API server's clock, repetition, rejections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adainf.kubernetes.controller import api
from adainf.kubernetes.controller.actions import EmitEvent
from adainf.kubernetes.controller.client_actions import Executor
from adainf.kubernetes.controller.parse import create_failures
from adainf.kubernetes.controller.pods import current_conditions
from adainf.kubernetes.controller.state import Pod
from adainf.kubernetes.controller.templates import Owner
from tests.kubernetes.controller import api_server as servers
from tests.kubernetes.controller.api_server import ApiServer, api_server
from tests.kubernetes.controller.simulation import NAMESPACE, SHORT, START_TIMEOUT_S, Simulation
from tests.kubernetes.controller.states import NOW, attempt, cluster_state

ONE = attempt("ingest", uid="u-1", created=NOW - 3000, pods_wanted=2)


def event(
    seen: float, uid: str = "u-1", note: str = "exceeded quota", field: str = "deprecatedLastTimestamp"
) -> dict[str, Any]:
    at = datetime.fromtimestamp(seen, UTC).isoformat().replace("+00:00", "Z")
    created = datetime.fromtimestamp(seen - 4000, UTC).isoformat()
    times: dict[str, Any] = {"series": {"lastObservedTime": at}} if field == "series" else {field: at}
    if field == "metadata":
        created, times = at, {}
    return {"metadata": {"creationTimestamp": created}, "regarding": {"uid": uid}, "note": note, **times}


def pod(created: float, phase: str = "Running", index: int = 0) -> Pod:
    return Pod(f"p-{index}", ONE.job, index, phase, created)


@pytest.mark.parametrize(
    ("events", "pods", "found"),
    [
        ([event(NOW - 10)], [], "exceeded quota"),
        ([event(NOW - 10)], [pod(NOW - 2000)], "exceeded quota"),
        ([event(NOW - 10)], [pod(NOW - 2000), pod(NOW - 2000, index=1)], ""),  # it lacks no pod
        ([event(NOW - 10)], [pod(NOW - 2000), pod(NOW - 50, "Failed", 1)], "exceeded quota"),
        ([event(NOW - 100)], [pod(NOW - 2000), pod(NOW - 50, "Failed", 1)], ""),  # a pod has been admitted since
        ([event(NOW - 601)], [], ""),  # the Job controller would have reported it again
        ([event(NOW - 3001)], [], ""),  # of an earlier attempt of this name
        ([event(NOW - 10, uid="u-0")], [], ""),
        ([event(NOW - 20, note="old"), event(NOW - 10, note="new"), event(NOW - 30, note="older")], [], "new"),
        ([event(NOW - 10, field="series")], [], "exceeded quota"),
        ([event(NOW - 10, field="eventTime")], [], "exceeded quota"),
        ([event(NOW - 10, field="metadata")], [], "exceeded quota"),
        ([{"metadata": {}}], [], ""),
    ],
)
def test_rejected_pods(events: list[dict[str, Any]], pods: list[Pod], found: str) -> None:
    assert create_failures(events, [ONE], pods, NOW) == ({ONE.job: found} if found else {})


@pytest.mark.parametrize("fields", [{"state": "ending"}, {"state": "failed"}, {"pods_wanted": 0}])
def test_an_attempt_that_needs_no_pods(fields: dict[str, Any]) -> None:
    assert create_failures([event(NOW - 10)], [replace(ONE, **fields)], [], NOW) == {}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.put("/apis/batch/v1/namespaces/ns/jobs/a", {"metadata": {"name": "a"}})
        yield running


@pytest.mark.parametrize(("server_is_ahead_s", "corrected"), [(0, False), (1, False), (7200, True), (-7200, True)])
def test_the_clock_of_the_api_server(
    server_is_ahead_s: int, corrected: bool, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong clock of the controller's node does not matter. Differences within the header's resolution are ignored."""
    date = formatdate(NOW + server_is_ahead_s, usegmt=True)
    monkeypatch.setattr(servers._Handler, "date_time_string", lambda self, timestamp=None: date)
    monkeypatch.setattr(api, "time", SimpleNamespace(time=lambda: NOW))
    client = server.api()
    assert client.now() == NOW
    client.get(api.JOBS, "jobs", "a")
    assert client.now() == NOW + (server_is_ahead_s if corrected else 0)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2026 00:00:00 GMT"])
def test_an_invalid_date_is_ignored(date: str, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers._Handler, "date_time_string", lambda self, timestamp=None: date)
    client = server.api()
    client.get(api.JOBS, "jobs", "a")
    assert client._offset_s == 0


def test_a_lasting_condition_is_repeated_with_a_count(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half hour, also by the next process of the controller; another start of the condition is another Event."""
    client, logged = server.api(), list[str]()

    def emit(at: float, since: float | None = NOW, new_process: bool = False) -> int:
        nonlocal executor
        if new_process:
            executor = Executor(client, owner, lambda job: None, logged.append)
        monkeypatch.setattr(client, "now", lambda: at)
        executor.emit_event(EmitEvent("Unschedulable", "p-0", "no node", since=since))
        return sum("/events/" in path for path in server.objects)

    owner = Owner("adainf", "u", "ns")
    executor = Executor(client, owner, lambda job: None, logged.append)
    assert [emit(NOW + s) for s in (0, 10, 1799, 1800, 3599, 3600)] == [1, 1, 1, 2, 2, 3]
    assert emit(NOW + 3700, new_process=True) == 3
    assert emit(NOW + 3700, since=NOW + 3690) == 4
    assert [emit(NOW + s, since=None) for s in (0, 5000)] == [5, 5]
    assert logged[:3] == ["no node", "no node (for 30m, reported 2 times)", "no node (for 1h00m, reported 3 times)"]


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(tmp_path, monkeypatch)


def run_to(sim: Simulation, stage: str) -> dict[str, Any]:
    """Run to the time at which an attempt of a stage is at work. Returns its Job."""
    for _ in range(20):
        sim.pass_time(20)
        for job in sim.attempts():
            if job["metadata"]["labels"]["adainf.dev/stage"] == stage:
                return job
            if sim.progressing(job):
                sim.finish(job)
    raise AssertionError(f"{stage} does not start")


def reported(sim: Simulation, task: str) -> list[Any]:
    return sim.published().get(task, ["", "", 0])


def test_a_rejected_job_is_tried_again(sim: Simulation) -> None:
    """A quota on Jobs after the dry run: the task waits, others continue, and it starts when the quota is raised."""
    run_to(sim, "fit")
    sim.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "4"}}})
    fit = next(job for job in sim.attempts() if job["metadata"]["labels"]["adainf.dev/stage"] == "fit")
    sim.finish(fit)
    sim.pass_time(20)
    reason, message, _ = reported(sim, "generate")
    assert (reason, "exceeded quota: q" in message, "or the quota" in message) == ("JobRejected", True, True)
    assert any(map(sim.progressing, sim.attempts())), "the other arm continues"
    sim.store.delete("resourcequotas", sim.store.list("resourcequotas")[0])
    sim.pass_time(70)
    assert reported(sim, "generate")[0] == ""
    assert any(job["metadata"]["labels"]["adainf.dev/stage"] == "generate" for job in sim.attempts())


def test_a_rejected_job_ends_the_pipeline_when_nothing_else_can_run(sim: Simulation) -> None:
    job = run_to(sim, "ingest")
    sim.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "1"}}})
    sim.finish(job)
    for _ in range(20):
        sim.pass_time(61)
    assert sim.end is not None
    assert (sim.end.code, "exceeded quota: q" in sim.end.message) == (64, True)


@pytest.mark.parametrize(
    ("trouble", "reason", "fix"),
    [
        ("cordon", "Unschedulable", "add nodes"),
        ("image", "ErrImagePull|ImagePullBackOff", "check the image's name"),
        ("quota", "PodCreationFailed", "raise the quota"),
    ],
)
def test_what_workers_wait_for_is_reported_while_it_lasts(trouble: str, reason: str, fix: str, sim: Simulation) -> None:
    """One of two workers works and is not stopped. The other one starts once the trouble is over."""
    job = run_to(sim, "generate")
    victim, other = sim.running(job)
    sim.cordon(trouble == "cordon")
    sim.kubelet.missing_images = {victim["spec"]["containers"][0]["image"]} if trouble == "image" else set()
    if trouble == "quota":
        used = len(sim.running())
        sim.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": str(used - 1)}}})
    sim.preempt(victim)
    for s in (5, 40, 1000, 5000):
        sim.pass_time(s)
    assert reported(sim, "generate")[0] in reason.split("|")
    assert fix in reported(sim, "generate")[1]
    assert [pod["metadata"]["name"] for pod in sim.running(job)] == [other["metadata"]["name"]]
    sim.cordon(False)
    sim.kubelet.missing_images = set()
    for quota in sim.store.list("resourcequotas"):
        sim.store.delete("resourcequotas", quota)
    for _ in range(3):
        sim.pass_time(10)
    assert reported(sim, "generate")[0] == ""
    assert len(sim.running(job)) == 2


@pytest.mark.parametrize("trouble", ["quota", "cordon"])
@pytest.mark.parametrize("restart", [False, True])
def test_preempted_workers_get_the_complete_start_timeout(trouble: str, restart: bool, sim: Simulation) -> None:
    """Would catch a time-out counted from the start of an attempt, or of another pod, that worked until a moment ago."""
    job = run_to(sim, "generate")
    first, second = sim.running(job)
    if trouble == "quota":
        sim.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}})
    sim.cordon(True)
    sim.preempt(first)
    sim.pass_time(3 * START_TIMEOUT_S)
    sim.preempt(second)
    sim.sync()
    if restart:
        sim.restart_controller()
    sim.pass_time(60)
    stored = sim.store.get("jobs", NAMESPACE, job["metadata"]["name"])
    assert stored
    assert "adainf.dev/released" not in stored["metadata"]["annotations"]
    sim.pass_time(START_TIMEOUT_S + 60)
    stored = sim.store.get("jobs", NAMESPACE, job["metadata"]["name"])
    assert stored
    assert "adainf.dev/released" in stored["metadata"]["annotations"]


def test_without_any_valid_recipe_nothing_is_stopped(sim: Simulation) -> None:
    """A new process, whose user deleted the recipes in the run, knows no task and no template."""
    job = run_to(sim, "generate")
    victim, other = sim.running(job)
    sim.cordon(True)
    sim.preempt(victim)
    sim.recipe.write_text("{")
    for info in list(sim.run.store.list("recipes/")):
        sim.run.store.delete(info.key)
    sim.restart_controller()
    for s in (10, START_TIMEOUT_S + 10, START_TIMEOUT_S + 10):
        sim.pass_time(s)
    assert reported(sim, "")[0] == "RecipeInvalid"
    assert [pod["metadata"]["name"] for pod in sim.running(job)] == [other["metadata"]["name"]]


@pytest.mark.parametrize(("age_s", "reasons"), [(29, []), (31, ["Pending"])])
def test_pending_without_a_reason_is_reported_after_half_a_minute(age_s: int, reasons: list[str]) -> None:
    one = attempt("ingest")
    waits = Pod("p-0", one.job, 0, "Pending", NOW - age_s)
    found = current_conditions(cluster_state(one, pods=(waits,)), 60)
    assert [reason for reason, *_ in found.values()] == reasons


def test_problems_of_the_recipe_and_templates_are_published(sim: Simulation) -> None:
    run_to(sim, "generate")
    sim.recipe.write_text(f"{SHORT}armz: [none]\n")
    sim.store.delete("cronjobs", sim.templates["adainf-report"])
    sim.pass_time(70)
    assert reported(sim, "")[0] == "RecipeInvalid"
    assert "armz is not a setting" in reported(sim, "")[1]
    assert sorted(reason for reason, *_ in sim.published().values()) == ["RecipeInvalid", "TemplateInvalid"]
