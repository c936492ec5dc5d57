"""The adapter and the mirror against a real HTTP server that misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adainf.kubernetes.controller import api as module
from adainf.kubernetes.controller.api import JOBS, Refused, Unavailable, read_token
from adainf.kubernetes.controller.informer import Mirror
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


@pytest.mark.parametrize("trouble", [429, 500, 503, 504, 408, 401, "cut"])
def test_what_passes_is_tried_again(server: ApiServer, trouble: object) -> None:
    sleeps: list[float] = []
    server.troubles = [trouble, trouble]
    assert server.api(sleeps).get(JOBS, "jobs", "a")["metadata"]["name"] == "a"
    assert len(sleeps) == 2
    assert (sleeps[0] >= 7) == (trouble == 429), "Retry-After is kept to"


def test_a_hanging_server_is_left_and_asked_again(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", (1, 0.2))
    server.troubles = ["hang"]
    assert server.api().get(JOBS, "jobs", "a")["metadata"]["name"] == "a"


def test_pauses_grow_and_end(server: ApiServer) -> None:
    sleeps: list[float] = []
    server.troubles = [500] * 9
    with pytest.raises(Unavailable, match="answers 500"):
        server.api(sleeps).get(JOBS, "jobs", "a")
    assert len(sleeps) == 4
    assert sleeps[3] > sleeps[0]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_refusal_is_told_at_once(server: ApiServer, status: int) -> None:
    server.troubles = [status]
    with pytest.raises(Refused, match=f"trouble {status}") as refusal:
        server.api().create(JOBS, "jobs", {"metadata": {"name": "b"}})
    assert refusal.value.status == status
    assert len(server.calls) == 1


def test_a_create_whose_answer_is_lost_is_a_conflict_and_not_two(server: ApiServer) -> None:
    client = server.api()
    client.create(JOBS, "jobs", {"metadata": {"name": "b"}})
    with pytest.raises(Refused) as refusal:
        client.create(JOBS, "jobs", {"metadata": {"name": "b"}})
    assert refusal.value.status == 409


def test_a_rehearsal_leaves_nothing(server: ApiServer) -> None:
    server.api().create(JOBS, "jobs", {"metadata": {"name": "b"}}, dry_run=True)
    assert list(server.objects) == [f"{PATH}/a"]


def test_the_token_is_read_for_each_request(server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    client = server.api()
    client._configuration.api_key["BearerToken"] = "Bearer zero"
    client._configuration.refresh_api_key_hook = read_token(file)
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        client.get(JOBS, "jobs", "a")
    assert server.tokens == ["Bearer one", "Bearer two"]


def names(mirror: Mirror) -> set[str]:
    return {thing["metadata"]["name"] for thing in mirror.objects()}


def test_a_mirror_follows_what_changes(server: ApiServer) -> None:
    woken = threading.Event()
    mirror = Mirror(server.api(), JOBS, "jobs", "x=y", woken.set)
    assert names(mirror) == {"a"}
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    assert woken.wait(2)
    assert names(mirror) == {"a", "b"}
    server.put(f"{PATH}/a", server.objects[f"{PATH}/a"], "DELETED")
    until(lambda: names(mirror) == {"b"})
    assert sum("watch" not in path for _, path in server.calls) == 1, "one list, and the rest by the watch"


def test_a_mirror_lists_anew_when_its_version_is_forgotten(server: ApiServer) -> None:
    mirror = Mirror(server.api(), JOBS, "jobs", "x=y", lambda: None)
    server.forgotten = 2
    assert names(mirror) == {"a"}
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    until(lambda: names(mirror) == {"a", "b"})
    assert sum("watch" not in path for _, path in server.calls) >= 2


def test_a_mirror_goes_on_after_a_watch_that_is_cut(server: ApiServer) -> None:
    mirror = Mirror(server.api(), JOBS, "jobs", "x=y", lambda: None)
    assert names(mirror) == {"a"}
    server.troubles = ["cut", "cut"]
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    until(lambda: names(mirror) == {"a", "b"})
    server.put(f"{PATH}/c", {"metadata": {"name": "c"}})
    until(lambda: "c" in names(mirror), 8)


def test_a_late_answer_hides_nothing_that_a_watch_has_brought(server: ApiServer) -> None:
    mirror = Mirror(server.api(), JOBS, "jobs", "x=y", lambda: None)
    mirror.objects()
    made = server.put(f"{PATH}/b", {"metadata": {"name": "b"}})
    server.put(f"{PATH}/b", {"metadata": {"name": "b"}, "status": "ended"})
    until(lambda: any(thing.get("status") == "ended" for thing in mirror.objects()))
    mirror.put(made)
    assert any(thing.get("status") == "ended" for thing in mirror.objects())


def test_a_silent_watch_is_mended_by_the_next_list(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adainf.kubernetes.controller.informer.RELIST_S", 0.3)
    mirror = Mirror(server.api(), JOBS, "jobs", "x=y", lambda: None)
    assert names(mirror) == {"a"}
    server.objects[f"{PATH}/b"] = {"metadata": {"name": "b"}}  # no watch tells of it
    until(lambda: names(mirror) == {"a", "b"}, 2)
