"""The API client and the informer against a real HTTP server with faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adainf.kubernetes.controller import api as module
from adainf.kubernetes.controller.api import JOBS, ApiStatusError, Unavailable, read_token
from adainf.kubernetes.controller.informer import Informer
from tests.kubernetes.controller.api_server import ApiServer, api_server

PATH = "/apis/batch/v1/namespaces/ns/jobs"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.put(f"{PATH}/a", {"metadata": {"name": "a"}})
        yield running


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("fault", [429, 500, 503, 504, 408, 401, "cut"])
def test_transient_errors_are_retried(server: ApiServer, fault: object) -> None:
    sleeps: list[float] = []
    server.faults = [fault, fault]
    assert server.api(sleeps).get(JOBS, "jobs", "a")["metadata"]["name"] == "a"
    assert len(sleeps) == 2
    assert (sleeps[0] >= 7) == (fault == 429), "Retry-After is honored"


def test_a_hanging_request_times_out_and_is_retried(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", (1, 0.2))
    server.faults = ["hang"]
    assert server.api().get(JOBS, "jobs", "a")["metadata"]["name"] == "a"


def test_backoff_grows_and_retries_are_limited(server: ApiServer) -> None:
    sleeps: list[float] = []
    server.faults = [500] * 9
    with pytest.raises(Unavailable, match="responds with 500"):
        server.api(sleeps).get(JOBS, "jobs", "a")
    assert len(sleeps) == 4
    assert sleeps[3] > sleeps[0]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_other_status_errors_are_not_retried(server: ApiServer, status: int) -> None:
    server.faults = [status]
    with pytest.raises(ApiStatusError, match=f"fault {status}") as refusal:
        server.api().create(JOBS, "jobs", {"metadata": {"name": "b"}})
    assert refusal.value.status == status
    assert len(server.calls) == 1


def test_a_create_whose_response_is_lost_conflicts_on_retry(server: ApiServer) -> None:
    client = server.api()
    client.create(JOBS, "jobs", {"metadata": {"name": "b"}})
    with pytest.raises(ApiStatusError) as refusal:
        client.create(JOBS, "jobs", {"metadata": {"name": "b"}})
    assert refusal.value.status == 409


def test_a_dry_run_stores_nothing(server: ApiServer) -> None:
    server.api().create(JOBS, "jobs", {"metadata": {"name": "b"}}, dry_run=True)
    assert list(server.objects) == [f"{PATH}/a"]


def test_the_token_is_read_before_each_request(server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    client = server.api()
    client._configuration.api_key["BearerToken"] = "Bearer zero"
    client._configuration.refresh_api_key_hook = read_token(file)
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        client.get(JOBS, "jobs", "a")
    assert server.tokens == ["Bearer one", "Bearer two"]


def names(informer: Informer) -> set[str]:
    return {thing["metadata"]["name"] for thing in informer.objects()}


def test_the_informer_follows_changes(server: ApiServer) -> None:
    woken = threading.Event()
    informer = Informer(server.api(), JOBS, "jobs", "x=y", woken.set)
    assert names(informer) == {"a"}
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    assert woken.wait(2)
    assert names(informer) == {"a", "b"}
    server.put(f"{PATH}/a", server.objects[f"{PATH}/a"], "DELETED")
    until(lambda: names(informer) == {"b"})
    assert sum("watch" not in path for _, path in server.calls) == 1, "one list, then the watch"


def test_the_informer_lists_again_when_its_version_has_expired(server: ApiServer) -> None:
    informer = Informer(server.api(), JOBS, "jobs", "x=y", lambda: None)
    server.expired = 2
    assert names(informer) == {"a"}
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    until(lambda: names(informer) == {"a", "b"})
    assert sum("watch" not in path for _, path in server.calls) >= 2


def test_the_informer_resumes_after_a_broken_watch(server: ApiServer) -> None:
    informer = Informer(server.api(), JOBS, "jobs", "x=y", lambda: None)
    assert names(informer) == {"a"}
    server.faults = ["cut", "cut"]
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    until(lambda: names(informer) == {"a", "b"})
    server.put(f"{PATH}/c", {"metadata": {"name": "c"}})
    until(lambda: "c" in names(informer), 8)


def test_a_late_response_does_not_replace_a_newer_version(server: ApiServer) -> None:
    informer = Informer(server.api(), JOBS, "jobs", "x=y", lambda: None)
    informer.objects()
    made = server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}, "status": "ended"})
    until(lambda: any(thing.get("status") == "ended" for thing in informer.objects()))
    informer.put(made)
    assert any(thing.get("status") == "ended" for thing in informer.objects())


def test_the_next_list_recovers_from_a_stalled_watch(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adainf.kubernetes.controller.informer.RELIST_S", 0.3)
    informer = Informer(server.api(), JOBS, "jobs", "x=y", lambda: None)
    assert names(informer) == {"a"}
    server.objects[f"{PATH}/b"] = {"metadata": {"name": "b"}}  # no watch reports it
    until(lambda: names(informer) == {"a", "b"}, 2)
