"""A quota that admits a part of the workers, with real kubectl and the controller as a real process."""

from __future__ import annotations

import pytest

from adainf.cli import main
from tests.cluster import Cluster
from tests.kubernetes.controller.pipeline import FOREVER, Pipeline, task
from tests.kubernetes.controller.test_scenarios import ONCE, cluster, pipeline

__all__ = ["cluster", "pipeline"]


def test_a_quota_for_two_of_four_workers(
    pipeline: Pipeline, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two work, the others wait and are reported, and nothing is stopped. They start when the first two have ended."""
    pipeline.play = lambda pod: FOREVER if task(pod["metadata"]["labels"]) in ("fit", "generate") else None
    pipeline.apply()
    fit = pipeline.pod("fit")
    cluster.until_ended(f"adainf-pretrain-none-{fit['metadata']['labels']['job-name'].split('-')[-2]}-1", 30)
    hard = {"requests.nvidia.com/gpu": "2"}
    cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": hard}})
    pipeline.finish(fit)
    workers = [pipeline.pod("generate", index) for index in (0, 1)]
    cluster.until(lambda: "PodCreationFailed" in pipeline.notes(), 60)
    assert "rejects 2 of 4 pods" in pipeline.notes()["PodCreationFailed"]
    assert "exceeded quota: small" in pipeline.notes()["PodCreationFailed"]
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["status"]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "generate" in line and "2/4" in line)
    assert "PodCreationFailed for" in row
    pipeline.play = lambda pod: None
    for worker in workers:
        pipeline.finish(worker)
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE
