"""The pipeline on a real cluster, that of KUBECONFIG.

    KUBECONFIG=… ADAINF_E2E_IMAGE_CONTROLLER=… ADAINF_E2E_IMAGE_TRAIN=… python -m pytest tests/e2e -m slow -ra

The images are those of targets `controller` and `train-cpu`, from a registry that the nodes can pull from. ADAINF_E2E_IMAGE_S3
replaces the image of SeaweedFS. The tests create and delete a namespace that enforces Pod Security `restricted`, or use the
empty namespace ADAINF_E2E_NAMESPACE. They need about 7 GiB of memory, and no LoadBalancer, metrics server or volumes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adainf.kubernetes.render import render

NEEDED = ("KUBECONFIG", "ADAINF_E2E_IMAGE_CONTROLLER", "ADAINF_E2E_IMAGE_TRAIN")
MISSING = [name for name in NEEDED if not os.environ.get(name)]
PIPELINE_S, STAGE_S = 3600, 1200
GONE_S = 120
"""Less than the grace period of a gang, 300 s, which a pod that ignores SIGTERM would take."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no cluster is configured: set {', '.join(MISSING)}"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on the PATH"),
]


class Cluster:
    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        images = {"controller": os.environ[NEEDED[1]], "train-cpu": os.environ[NEEDED[2]]}
        text = render(overlay="cpu", images=images)
        if s3 := os.environ.get("ADAINF_E2E_IMAGE_S3"):
            (line,) = (line for line in text.splitlines() if "/seaweedfs:" in line)
            text = text.replace(line, line.partition("image:")[0] + f"image: {s3}")
        self.manifests = text

    def __call__(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def apply(self) -> str:
        return self("apply", "-f", "-", text=self.manifests)

    def get(self, kind: str, selector: str = "app.kubernetes.io/name=adainf") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self("get", kind, "--selector", selector, "--output", "json"))["items"]
        return items

    def children(self, stage: str | None = None) -> list[dict[str, Any]]:
        return self.get("jobs", "adainf.dev/run=adainf" + (f",adainf.dev/stage={stage}" if stage else ""))

    def outcome(self) -> str | None:
        conditions = json.loads(self("get", "job/adainf", "--output", "json"))["status"].get("conditions", [])
        ended = (each["type"] for each in conditions if each["status"] == "True" and each["type"] in ("Complete", "Failed"))
        return next(ended, None)

    def until(self, what: str, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.outcome() == "Failed":
                logs = self("logs", "job/adainf", "--tail=50", check=False)
                description = self("describe", "job/adainf", check=False)
                seen = self("get", "jobs,pods", "--output", "wide", check=False)
                pytest.fail(f"{what} did not come:\n{seen}\n{description}\n{logs}")
            time.sleep(2)

    def complete(self, seconds: float) -> None:
        self.until("the end of job/adainf", lambda: self.outcome() == "Complete", seconds)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    given = os.environ.get("ADAINF_E2E_NAMESPACE")
    each = Cluster(given or f"adainf-e2e-{secrets.token_hex(3)}")
    if not given:
        each("create", "namespace", each.namespace)
        each("label", "namespace", each.namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield each
    finally:
        if given:
            each("delete", "--ignore-not-found", "-f", "-", text=each.manifests, check=False)
        else:
            each("delete", "namespace", each.namespace, "--wait=false", check=False)


def starting(gang: dict[str, Any]) -> bool:
    return bool(gang["status"].get("active"))


def at_work(gang: dict[str, Any]) -> bool:
    return "adainf.dev/progress" in gang["metadata"].get("annotations", {})


def test_deleted_while_it_pretrains_it_resumes(cluster: Cluster) -> None:
    """Once while its pods start, which must handle SIGTERM already, and once while they train."""
    for what in (starting, at_work):
        cluster.apply()
        cluster.until(f"a gang {what.__name__}", lambda what=what: any(map(what, cluster.children("pretrain"))), STAGE_S)
        cluster("delete", "job/adainf", "--wait=true")
        deadline = time.monotonic() + GONE_S
        while cluster.children() or cluster.get("pods", "adainf.dev/run=adainf"):
            assert time.monotonic() < deadline, "the stages outlive job/adainf"
            time.sleep(2)
    cluster.apply()
    cluster.complete(PIPELINE_S)
    assert not cluster.children("ingest")  # finished stages are skipped


def test_gangs_had_two_nodes(cluster: Cluster) -> None:
    gangs = cluster.children("pretrain")
    assert "adainf" in {
        each["metadata"]["labels"]["adainf.dev/arm"] for each in gangs
    }  # `none` may have ended before the deletion
    assert {each["spec"]["completions"] for each in gangs} == {2}


def test_applied_again_nothing_changes(cluster: Cluster) -> None:
    lines = cluster.apply().splitlines()
    assert [line for line in lines if not line.endswith(" unchanged")] == []


def test_a_finished_run_is_complete_at_once(cluster: Cluster) -> None:
    cluster("delete", "job/adainf", "--wait=true")
    cluster.apply()
    cluster.complete(STAGE_S)
    assert cluster.children() == []


def test_deletion_leaves_nothing(cluster: Cluster) -> None:
    cluster("delete", "-f", "-", "--wait=true", text=cluster.manifests)
    deadline = time.monotonic() + GONE_S
    while any(cluster.get(kind) for kind in ("jobs", "cronjobs", "pods", "services", "configmaps", "roles", "serviceaccounts")):
        assert time.monotonic() < deadline
        time.sleep(2)
