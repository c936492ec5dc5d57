"""`adainf status` and `adainf wait` show problems while they last, from what the controller and the Job controller report."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from adainf.cli import main
from adainf.kubernetes.controller import status
from tests.kubernetes.controller.api_server import ApiServer
from tests.kubernetes.controller.test_process import JOBS, server, table

__all__ = ["server"]
PODS = "/api/v1/namespaces/ns/pods"
EVENTS = "/apis/events.k8s.io/v1/namespaces/ns/events"
WORKERS = {"parallelism": 4, "completions": 4, "template": {"metadata": {}, "spec": {"containers": []}}}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def ago(seconds: float) -> float:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).timestamp()


def put_controller(server: ApiServer, conditions: dict[str, Any] | None = None, **job: Any) -> None:
    notes = {"adainf.dev/outline": json.dumps({"generate": [], "report": ["generate"]})}
    notes["adainf.dev/conditions"] = json.dumps(conditions or {})
    metadata = {"name": "adainf", "uid": "ab12cd34", "annotations": notes}
    server.put(f"{JOBS}/adainf", {"metadata": metadata, "status": {"active": 1, "ready": 1}, **job})


def put_attempt(server: ApiServer, **job_status: Any) -> None:
    labels = {"adainf.dev/stage": "generate", "adainf.dev/attempt": "1"}
    metadata = {"name": "adainf-generate-ab12-1", "labels": labels, "ownerReferences": [{"uid": "ab12cd34"}]}
    server.put(f"{JOBS}/adainf-generate-ab12-1", {"metadata": metadata, "spec": WORKERS, "status": job_status})


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """The row of stage generate, and the lines below the table."""
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    return table(printed)["generate", ""], printed.rpartition("┘")[2].split("\n")[1:-1]


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Unschedulable", "pod p-1 does not start: 0/2 nodes are available: 2 Insufficient [gpu].; add nodes"),
        ("ErrImagePull", "pod p-1 does not start: not found; check the image's name"),
        ("PodCreationFailed", "the API server rejects 2 of 4 pods of j: exceeded quota: small; raise the quota"),
        ("Pending", "pod p-1 does not start: Pending; none is needed while its image is pulled"),
    ],
)
def test_an_attempt_that_lacks_pods(reason: str, message: str, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    put_controller(server, {"generate": [reason, message, ago(720)]})
    put_attempt(server, ready=2, active=4)
    row, below = shown(capsys)
    assert row[1:3] == ["running", "2/4"]
    assert row[-1] == f"{reason} for 12m: {message}"
    assert below == ["Job/adainf is running"]
    put_attempt(server, ready=0, active=0)
    assert shown(capsys)[0][1:3] == ["starting", "0/4"]


@pytest.mark.parametrize("reason", ["RecipeInvalid", "StoreUnreachable"])
def test_a_problem_of_the_pipeline(reason: str, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    put_controller(server, {"": [reason, "what, where, how to fix", ago(65)]})
    assert shown(capsys)[1] == ["Job/adainf is running", f"{reason} for 1m: what, where, how to fix"]


def test_a_missing_template(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    put_controller(server, {"generate": ["TemplateInvalid", "CronJob/x does not exist: apply the manifests again", ago(5)]})
    assert shown(capsys)[0][1:] == [
        "next", "", "", "", "", "TemplateInvalid for 5s: CronJob/x does not exist: apply the manifests again",
    ]  # fmt: skip


def test_the_controller_itself_does_not_start(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a status "running" for ever, as no controller reports anything."""
    put_controller(server, status={"active": 1})
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]}
    labels = {"batch.kubernetes.io/job-name": "adainf"}
    server.put(f"{PODS}/adainf-x", {"metadata": {"name": "adainf-x", "labels": labels}, "status": waiting})
    assert "the controller's pod adainf-x does not start: no such image; check the image" in shown(capsys)[1][1]
    server.put(f"{PODS}/adainf-x", {**server.objects[f"{PODS}/adainf-x"], "status": {"phase": "Failed"}})
    assert "the next one starts after a back-off" in shown(capsys)[1][1]
    server.put(f"{PODS}/adainf-x", server.objects[f"{PODS}/adainf-x"], "DELETED")
    assert "the controller has no pod: see `kubectl describe job/adainf`" in shown(capsys)[1][1]
    event = {"metadata": {"name": "e"}, "reason": "FailedCreate", "note": "exceeded quota", "regarding": {"uid": "ab12cd34"}}
    server.put(f"{EVENTS}/e", event)
    assert "the controller has no pod: exceeded quota; raise the quota" in shown(capsys)[1][1]
    put_controller(server)
    assert shown(capsys)[1] == ["Job/adainf is running"]


def test_an_ended_run_has_no_conditions(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    put_controller(server, {"generate": ["Unschedulable", "old", ago(9)], "": ["RecipeInvalid", "old", ago(9)]}, status=ended)
    row, below = shown(capsys)
    assert (row[-1], below) == ("", ["Job/adainf is complete"])


def test_a_queued_attempt(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    put_controller(server)
    put_attempt(server)
    job = server.objects[f"{JOBS}/adainf-generate-ab12-1"]
    server.put(f"{JOBS}/adainf-generate-ab12-1", {**job, "spec": {**WORKERS, "suspend": True}})
    assert shown(capsys)[0][1:3] == ["queued", "0/0"]


def test_wait_prints_each_change_once(
    server: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two polls one thing changes. The kubelet alternates between two reasons of one problem."""
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    changes = iter(
        [
            lambda: None,
            lambda: put_attempt(server, ready=2),
            *(
                lambda reason=reason: put_controller(server, {"generate": [reason, "check the image", ago(60)]})
                for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull")
            ),
            lambda: put_controller(server, {"generate": ["ErrImagePull", "?", 0], "": ["StoreUnreachable", "check", ago(60)]}),
            lambda: server.faults.extend([503] * 5),
            lambda: put_controller(server),
            lambda: put_attempt(server, ready=4),
            lambda: put_controller(server, status=ended),
        ]
    )
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: next(changes)()))
    monkeypatch.setattr(status, "connect", lambda namespace: server.api())
    put_controller(server)
    assert main(["wait"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "generate, attempt 1: running; 2/4 pods ready",
        "generate, attempt 1: running; 2/4 pods ready; ErrImagePull for 1m: check the image",
        "StoreUnreachable for 1m: check",
        f"GET {JOBS[1:]}/adainf: the API server responds with 503 (fault 503); 5 attempts failed; retrying",
        "the pipeline continues",
        "generate, attempt 1: running; 2/4 pods ready",
        "generate, attempt 1: running; 4/4 pods ready",
    ]
    assert last == "Job/adainf is complete"


def test_status_as_json(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    put_controller(server)
    put_attempt(server, active=3, ready=3)
    assert main(["status", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(task["stage"], task["pods"]) for task in printed["tasks"]] == [("generate", "3/4"), ("report", "")]
    assert printed["exit_code"] is None
