"""`adainf clean`, and the controller's own failures per time window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adainf.cli import main
from adainf.kubernetes.controller.actions import Finish
from adainf.kubernetes.controller.main import Controller
from adainf.kubernetes.controller.restarts import LIMIT, WINDOW_S, History, recent_failures
from adainf.kubernetes.controller.templates import Owner
from adainf.kubernetes.render import render
from tests.cluster import Cluster, Exit, Script
from tests.kubernetes.controller.api_server import ApiServer
from tests.kubernetes.controller.states import NOW
from tests.kubernetes.controller.test_process import JOBS, events, server

__all__ = ["server"]
KINDS = ["jobs", "cronjobs", "services", "configmaps", "roles", "rolebindings", "serviceaccounts", "deployments"]


def names(cluster: Cluster) -> set[str]:
    return {f"{kind}/{each['metadata']['name']}" for kind in KINDS for each in cluster.store.list(kind)}


def test_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the objects of one run, only after its end; the store of overlay cpu and Secrets stay."""
    with Cluster(tmp_path, speed=1000) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        cluster.on_pod(lambda pod: Script(after_s=float("inf"), on_sigterm=Exit(75)))
        cluster.apply(render())
        other = names(cluster)
        cluster.apply(render(overlay="cpu", name="mine"))
        cluster.request("POST", "secrets", {"metadata": {"name": "mine-s3"}, "stringData": {"K": "v"}})
        own = names(cluster) - other
        assert len(own) > 15
        assert main(["clean", "--name", "mine"]) == 64
        refused = capsys.readouterr().err
        assert "Job/mine in namespace lab has not ended: wait" in refused
        assert refused.count("\n") == 1
        assert names(cluster) == own | other
        (pod,) = cluster.until(lambda: [pod for pod in cluster.pods("mine") if pod["status"]["phase"] == "Running"])
        cluster.finish(pod, Exit(0))
        cluster.until_ended("mine")
        assert main(["clean", "--name", "mine", "--dry-run"]) == 0
        assert "jobs/mine would be deleted" in capsys.readouterr().out
        assert names(cluster) == own | other
        assert main(["clean", "--name", "mine"]) == 0
        printed = capsys.readouterr().out
        store = {"services/mine-seaweedfs", "deployments/mine-seaweedfs"}
        assert names(cluster) == other | store
        assert "jobs/mine deleted" in printed
        assert "deployments/mine-seaweedfs kept, as it belongs to the store that holds the run: add --store" in printed
        assert main(["clean", "--name", "mine", "--store"]) == 0
        assert names(cluster) == other
        capsys.readouterr()
        assert main(["clean", "--name", "mine"]) == 0
        assert capsys.readouterr().out == "namespace lab contains no objects of run mine\n"
        assert cluster.store.get("secrets", "lab", "mine-s3")
        cluster.until(lambda: not cluster.pods("mine"))


def test_clean_without_rights(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.faults = [403]
    assert main(["clean"]) == 64
    assert "ask for the right to list jobs in namespace ns" in capsys.readouterr().err


def starts(times: list[float]) -> tuple[int, History]:
    """One failure before each start but the first."""
    count, history = 0, History()
    for failed, at in enumerate(times):
        count, history = recent_failures(json.loads(json.dumps(history)), failed, at)
    return count, history


def test_failures_within_the_window_count() -> None:
    assert starts([NOW + 60 * n for n in range(LIMIT + 2)])[0] == LIMIT + 1
    count, history = starts([NOW + WINDOW_S * n / 10 for n in range(1000)])
    assert (count, len(history)) == (11, 12), "a run of months has bounded history"
    assert recent_failures([], 50, NOW) == (0, [(NOW, 50)]), "the times of the failures are unknown"
    assert recent_failures([(NOW, 3)], 3, NOW + 9) == (0, [(NOW, 3)]), "a restart after a disruption is no failure"
    assert recent_failures([(NOW + 900, 3)], 3, NOW)[0] == 0, "the clock was set back"


@pytest.mark.parametrize(("failures", "code"), [(LIMIT, None), (LIMIT + 1, 65)])
def test_a_controller_that_fails_too_often(failures: int, code: int | None, server: ApiServer, tmp_path: Path) -> None:
    def start() -> Finish | None:
        owner = Owner("adainf", "ab12cd34", "ns")
        return Controller(server.api(), owner, str(tmp_path), tmp_path / "recipe.yaml")._count_restarts()

    assert start() is None
    server.put(f"{JOBS}/adainf", {**server.objects[f"{JOBS}/adainf"], "status": {"failed": failures}})
    end = start()
    assert (end and end.code) == code
    assert ("failed 21 times within 6 hours" in events(server).get("Failed", "")) == bool(code)
