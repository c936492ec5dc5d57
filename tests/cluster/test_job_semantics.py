"""One test for each row of docs/job-semantics.md, with the name in its last column."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, Exit, Process, Script
from tests.cluster.job_controller import condition
from tests.cluster.store import Object

FOREVER = Script(after_s=float("inf"))
DISRUPTED = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One second of the cluster takes 10 ms."""
    with Cluster(tmp_path, speed=100) as cluster:
        yield cluster


def test_a_row_for_each_test() -> None:
    table = (Path(__file__).parents[2] / "docs" / "job-semantics.md").read_text()
    rows = re.findall(r"\| `(\w+)` \|$", table, re.MULTILINE)
    assert sorted(rows) == sorted(
        name[5:] for name in globals() if name.startswith("test_") and name != "test_a_row_for_each_test"
    )


def exits(*codes: int) -> dict[str, Any]:
    return {"onExitCodes": {"containerName": "w", "operator": "In", "values": list(codes)}}


def start(cluster: Cluster, name: str = "j", pod: Object | None = None, **spec: Any) -> None:
    container = {"name": "w", "image": "w:1"}
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})},
    }
    code, answer = cluster.request(
        "POST", "batch/v1/jobs", {"metadata": {"name": name}, "spec": {"template": template, **spec}}
    )
    assert code == 201, answer


def gang(cluster: Cluster, size: int = 2, **spec: Any) -> None:
    start(cluster, **{"completionMode": "Indexed", "completions": size, "parallelism": size, "backoffLimit": 0, **spec})


def status(cluster: Cluster, name: str = "j") -> Object:
    return (cluster.job(name) or {}).get("status", {})


def patch(cluster: Cluster, body: Object, name: str = "j") -> tuple[int, Object]:
    return cluster.request("PATCH", f"batch/v1/jobs/{name}", body, kind="application/merge-patch+json")


def running(cluster: Cluster, count: int, job: str = "j") -> list[Object]:
    """The pods of a Job, once `count` of them are running."""

    def look() -> list[Object]:
        pods = [
            pod
            for pod in cluster.pods(job)
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]
        return pods if len(pods) == count else []

    return cluster.until(look)


def by_index(codes: dict[str, Script]) -> Any:
    return lambda pod: codes.get(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], FOREVER)


def test_indexed(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    gang(cluster, 3)
    pods = running(cluster, 3)
    key = "batch.kubernetes.io/job-completion-index"
    assert [pod["metadata"]["annotations"][key] + pod["metadata"]["labels"][key] for pod in pods] == ["00", "11", "22"]
    assert [pod["spec"]["hostname"] for pod in pods] == ["j-0", "j-1", "j-2"]
    assert all(re.fullmatch(rf"j-{index}-\w{{5}}", pod["metadata"]["name"]) for index, pod in enumerate(pods))
    assert all(pod["spec"]["containers"][0]["env"][-1]["name"] == "JOB_COMPLETION_INDEX" for pod in pods)


def test_complete(cluster: Cluster) -> None:
    gang(cluster, 5, parallelism=2)
    assert cluster.until_ended("j")["reason"] == "CompletionsReached"
    found = status(cluster)
    assert (found["succeeded"], found["completedIndexes"]) == (5, "0-4")
    assert [each["type"] for each in found["conditions"]] == ["SuccessCriteriaMet", "Complete"]


def test_backoff_limit(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(Exit(1)))
    start(cluster, backoffLimit=2)
    assert cluster.until_ended("j")["message"] == "Job has reached the specified backoff limit"
    assert (status(cluster)["failed"], len(cluster.pods("j"))) == (3, 3)


def test_backoff_delay(cluster: Cluster) -> None:
    starts: list[float] = []

    def play(pod: Object) -> Script:
        starts.append(time.monotonic())
        return Script(Exit(1))

    cluster.on_pod(play)
    start(cluster, backoffLimit=2)
    cluster.until_ended("j")
    first_s, second_s = (cluster.speed * (b - a) for a, b in pairwise(starts))
    assert first_s >= 9.5  # the start of the pod is recorded with some delay
    assert second_s >= 19.5


def test_backoff_limit_per_index(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"0": Script(), "1": Script(Exit(1)), "2": Script()}))
    gang(cluster, 3, backoffLimitPerIndex=1, backoffLimit=100)
    assert cluster.until_ended("j")["reason"] == "FailedIndexes"
    found = status(cluster)
    assert (found["completedIndexes"], found["failedIndexes"], found["failed"]) == ("0,2", "1", 2)


def test_max_failed_indexes(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"0": Script(Exit(1)), "1": Script(Exit(1))}))
    gang(cluster, 4, backoffLimitPerIndex=0, maxFailedIndexes=1, backoffLimit=100)
    assert cluster.until_ended("j")["reason"] == "MaxFailedIndexesExceeded"
    assert "succeeded" not in status(cluster)


def test_fail_job_on_exit_code(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"1": Script(Exit(75))}))
    gang(cluster, podFailurePolicy={"rules": [{"action": "FailJob", **DISRUPTED}, {"action": "FailJob", **exits(75)}]})
    ended = cluster.until_ended("j")
    assert ended["reason"] == "PodFailurePolicy"
    pattern = rf"Container w for pod {cluster.namespace}/j-1-\w{{5}} failed with exit code 75 matching FailJob rule at index 1"
    assert re.fullmatch(pattern, ended["message"])


def test_fail_job_on_disruption(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(after_s=float("inf"), on_sigterm=Exit(75)))
    gang(cluster, podFailurePolicy={"rules": [{"action": "FailJob", **DISRUPTED}, {"action": "FailJob", **exits(75)}]})
    cluster.request("POST", f"pods/{running(cluster, 2)[1]['metadata']['name']}/eviction", {})
    pattern = rf"Pod {cluster.namespace}/j-1-\w{{5}} has condition DisruptionTarget matching FailJob rule at index 0"
    assert re.fullmatch(pattern, cluster.until_ended("j")["message"])


def test_first_rule_wins(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(Exit(64)))
    start(cluster, podFailurePolicy={"rules": [{"action": "FailJob", **exits(64)}, {"action": "Ignore", **exits(64)}]})
    assert cluster.until_ended("j")["message"].endswith("rule at index 0")


def test_ignore(cluster: Cluster) -> None:
    plays = iter([Script(after_s=float("inf")), Script(Exit(75)), Script()])
    cluster.on_pod(lambda pod: next(plays))
    start(
        cluster,
        backoffLimit=0,
        podFailurePolicy={"rules": [{"action": "Ignore", **DISRUPTED}, {"action": "Ignore", **exits(75)}]},
    )
    cluster.preempt(running(cluster, 1)[0])
    assert cluster.until_ended("j")["type"] == "Complete"
    assert "failed" not in status(cluster)


def test_fail_index(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"0": Script(Exit(3)), "1": Script()}))
    rules = {"rules": [{"action": "FailIndex", **exits(3)}]}
    gang(cluster, backoffLimitPerIndex=5, backoffLimit=100, podFailurePolicy=rules)
    cluster.until_ended("j")
    assert (status(cluster)["failedIndexes"], status(cluster)["failed"]) == ("0", 1)


def test_failure_target_before_failed(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"1": Script(Exit(1), after_s=1), "0": Script(after_s=float("inf"), sigterm_s=20)}))
    gang(cluster)
    cluster.until(lambda: condition(cluster.job("j") or {}, "FailureTarget"))
    assert condition(cluster.job("j") or {}, "Failed") is None
    assert status(cluster)["terminating"] == 1
    cluster.until_ended("j")
    # The failed pod stays with its log; the terminated pod is deleted.
    assert [pod["spec"]["hostname"] for pod in cluster.pods("j")] == ["j-1"]
    assert status(cluster)["failed"] == 2


def test_success_policy(cluster: Cluster) -> None:
    cluster.on_pod(by_index({"0": Script()}))
    gang(cluster, successPolicy={"rules": [{"succeededIndexes": "0"}]})
    ended = cluster.until_ended("j")
    assert (ended["type"], ended["reason"], ended["message"]) == ("Complete", "SuccessPolicy", "Matched rules at index 0")
    assert status(cluster)["succeeded"] == 1
    assert len(cluster.pods("j")) == 1


def test_replacement_when_failed(cluster: Cluster) -> None:
    plays = iter([Script(after_s=float("inf"), on_sigterm=None), Script()])
    cluster.on_pod(lambda pod: next(plays))
    start(cluster, podReplacementPolicy="Failed")
    cluster.request("DELETE", f"pods/{running(cluster, 1)[0]['metadata']['name']}")
    cluster.until(lambda: status(cluster).get("terminating") == 1)
    assert len(cluster.pods("j")) == 1
    cluster.until_ended("j")
    assert (status(cluster)["failed"], status(cluster)["succeeded"]) == (1, 1)


def test_replacement_when_terminating(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(after_s=float("inf"), on_sigterm=None))
    start(cluster, backoffLimit=6)
    cluster.request("DELETE", f"pods/{running(cluster, 1)[0]['metadata']['name']}")
    cluster.until(lambda: len(cluster.pods("j")) == 2)


def test_active_deadline(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    start(cluster, activeDeadlineSeconds=20)
    ended = cluster.until_ended("j")
    assert (ended["type"], ended["reason"]) == ("Failed", "DeadlineExceeded")
    assert ended["message"] == "Job was active longer than specified deadline"
    assert cluster.pods("j") == []


def test_active_deadline_patched(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    start(cluster, activeDeadlineSeconds=100_000)
    running(cluster, 1)
    assert patch(cluster, {"spec": {"activeDeadlineSeconds": 1}})[0] == 200
    assert cluster.until_ended("j")["reason"] == "DeadlineExceeded"


def test_suspend(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    start(cluster)
    first = running(cluster, 1)[0]
    patch(cluster, {"spec": {"suspend": True}})
    cluster.until(lambda: condition(cluster.job("j") or {}, "Suspended") and not cluster.pods("j"))
    assert "startTime" not in status(cluster)
    patch(cluster, {"spec": {"suspend": False}})
    assert running(cluster, 1)[0]["metadata"]["uid"] != first["metadata"]["uid"]


def test_ttl(cluster: Cluster) -> None:
    start(cluster, ttlSecondsAfterFinished=30)
    cluster.until_ended("j")
    cluster.until(lambda: cluster.job("j") is None and not cluster.pods("j"))


def test_ttl_patched(cluster: Cluster) -> None:
    start(cluster)
    cluster.until_ended("j")
    patch(cluster, {"spec": {"ttlSecondsAfterFinished": 0}})
    cluster.until(lambda: cluster.job("j") is None)


def quota(cluster: Cluster, **hard: str) -> None:
    cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": hard}})


def test_quota_of_pods(cluster: Cluster) -> None:
    quota(cluster, pods="1")
    cluster.on_pod(lambda pod: FOREVER)
    gang(cluster)
    running(cluster, 1)
    event = cluster.until(lambda: [each for each in cluster.events("j") if each["reason"] == "FailedCreate"])[0]
    assert event["type"] == "Warning"
    assert "is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1" in event["message"]
    cluster.request("DELETE", "resourcequotas/small")
    running(cluster, 2)


def test_quota_of_jobs(cluster: Cluster) -> None:
    quota(cluster, **{"count/jobs.batch": "0"})
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "w", "image": "w:1"}]}}
    body = {"metadata": {"name": "j"}, "spec": {"template": template}}
    code, answer = cluster.request("POST", "batch/v1/jobs?dryRun=All", body)
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"].startswith('jobs.batch "j" is forbidden: exceeded quota: small, requested: count/jobs.batch=1')


def test_immutable(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    gang(cluster)
    template = {"spec": {"terminationGracePeriodSeconds": 1}}
    changes: tuple[Object, ...] = (
        {"template": template},
        {"completions": 3},
        {"completionMode": "NonIndexed"},
        {"successPolicy": {"rules": []}},
    )
    for change in changes:
        code, answer = patch(cluster, {"spec": change})
        assert (code, answer["reason"]) == (422, "Invalid"), change
        assert "field is immutable" in answer["message"] or "completion" in answer["message"]
    assert patch(cluster, {"spec": {"parallelism": 3, "completions": 3}})[0] == 200


def test_image_missing(cluster: Cluster) -> None:
    cluster.kubelet.missing_images.add("w:1")
    start(cluster, backoffLimit=0)

    def reason() -> str:
        statuses = [pod["status"].get("containerStatuses", [{}]) for pod in cluster.pods("j")]
        return statuses[0][0].get("state", {}).get("waiting", {}).get("reason", "") if statuses else ""

    cluster.until(lambda: reason() == "ErrImagePull")
    cluster.until(lambda: reason() == "ImagePullBackOff")
    assert status(cluster)["active"] == 1
    assert {event["reason"] for event in cluster.events("j")} == {"SuccessfulCreate"}


def test_secret_missing(cluster: Cluster) -> None:
    container = {"name": "w", "image": "w:1", "envFrom": [{"secretRef": {"name": "keys"}}]}
    start(cluster, pod={"containers": [container]})

    def waiting() -> Object:
        statuses = [pod["status"].get("containerStatuses", [{}]) for pod in cluster.pods("j")]
        return statuses[0][0].get("state", {}).get("waiting", {}) if statuses else {}

    cluster.until(lambda: waiting() == {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'})
    cluster.request("POST", "secrets", {"metadata": {"name": "keys"}})
    assert cluster.until_ended("j")["type"] == "Complete"


def test_service_account_missing(cluster: Cluster) -> None:
    start(cluster, pod={"serviceAccountName": "nobody"})
    event = cluster.until(lambda: cluster.events("j"))[0]
    assert event["reason"] == "FailedCreate"
    assert 'serviceaccount "nobody" not found' in event["message"]


def test_insufficient_gpus(tmp_path: Path) -> None:
    size = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "8", "pods": "110"}
    with Cluster(tmp_path, {"a": size, "b": size}) as cluster:
        cluster.on_pod(lambda pod: FOREVER)
        container = {"name": "w", "image": "w:1", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
        gang(cluster, 3, pod={"containers": [container]})
        assert {pod["spec"]["nodeName"] for pod in running(cluster, 2)} == {"a", "b"}
        pending = next(pod for pod in cluster.pods("j") if pod["status"]["phase"] == "Pending")
        found = next(each for each in pending["status"]["conditions"] if each["type"] == "PodScheduled")
        assert (found["status"], found["reason"]) == ("False", "Unschedulable")
        assert found["message"] == "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def test_cordoned_node(cluster: Cluster) -> None:
    cluster.node("node-a").cordon()
    cluster.on_pod(lambda pod: FOREVER)
    gang(cluster, 3)
    assert {pod["spec"]["nodeName"] for pod in running(cluster, 3)} == {"node-b"}


def test_dead_node(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    toleration = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    gang(cluster, 1, podReplacementPolicy="Failed", pod={"tolerations": [toleration]})
    pod = running(cluster, 1)[0]
    cluster.node(pod["spec"]["nodeName"]).kill()
    cluster.until(lambda: "deletionTimestamp" in cluster.pods("j")[0]["metadata"])
    disruption = condition(cluster.pods("j")[0], "DisruptionTarget")
    assert disruption
    assert disruption["reason"] == "DeletionByTaintManager"
    time.sleep(0.5)  # 50 s: longer than the grace period
    hanging = cluster.pods("j")[0]
    assert hanging["status"]["phase"] == "Running"
    assert condition(hanging, "Ready") is None
    assert condition(hanging, "ContainersReady")
    assert condition(cluster.job("j") or {}, "Failed") is None


def test_removed_node(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    gang(cluster, 1, podFailurePolicy={"rules": [{"action": "FailJob", **DISRUPTED}]})
    cluster.node(running(cluster, 1)[0]["spec"]["nodeName"]).remove()
    assert "has condition DisruptionTarget" in cluster.until_ended("j")["message"]


def test_grace_period(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(after_s=float("inf"), on_sigterm=None))
    gang(cluster, 1, podReplacementPolicy="Failed", pod={"terminationGracePeriodSeconds": 40}, backoffLimit=1)
    pod = running(cluster, 1)[0]
    begun = time.monotonic()
    cluster.request("DELETE", f"pods/{pod['metadata']['name']}")
    cluster.until(lambda: pod["metadata"]["uid"] not in [each["metadata"]["uid"] for each in cluster.pods("j")])
    assert cluster.speed * (time.monotonic() - begun) >= 40


def test_process_one(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Process())
    program = ["python", "-c", "import time; print('up', flush=True); time.sleep(60)"]
    rules = {"rules": [{"action": "FailJob", **exits(137, 143)}]}
    for name, words, code in (("deaf", program, 137), ("behind-init", ["tini", "--", *program], 143)):
        pod = {"containers": [{"name": "w", "image": "w:1", "command": words}], "terminationGracePeriodSeconds": 1}
        start(cluster, name, pod, podReplacementPolicy="Failed", podFailurePolicy=rules)
        (first,) = cluster.until(lambda job=name: [pod for pod in cluster.pods(job) if cluster.kubelet.log(pod)])
        cluster.request("DELETE", f"pods/{first['metadata']['name']}")
        assert f"exit code {code} " in cluster.until_ended(name)["message"]


def test_out_of_memory(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: Script(Exit(137, reason="OOMKilled")))
    start(cluster, backoffLimit=0, podFailurePolicy={"rules": [{"action": "Ignore", **DISRUPTED}]})
    assert cluster.until_ended("j")["reason"] == "BackoffLimitExceeded"
    state = cluster.pods("j")[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")


@pytest.mark.parametrize(("policy", "left"), [(None, 1), ("Orphan", 1), ("Background", 0), ("Foreground", 0)])
def test_delete_job(cluster: Cluster, policy: str | None, left: int) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    start(cluster)
    running(cluster, 1)
    cluster.request("DELETE", "batch/v1/jobs/j", {"propagationPolicy": policy} if policy else None)
    cluster.until(lambda: cluster.job("j") is None)
    cluster.until(lambda: len(cluster.pods()) == left)
    time.sleep(0.1)
    assert len(cluster.pods()) == left


def test_owner_that_does_not_control(cluster: Cluster) -> None:
    cluster.on_pod(lambda pod: FOREVER)
    start(cluster, "parent")
    parent = cluster.job("parent")
    assert parent
    start(cluster, "child")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "parent", "uid": parent["metadata"]["uid"], "controller": False}
    patch(cluster, {"metadata": {"ownerReferences": [{**owner, "blockOwnerDeletion": False}]}}, "child")
    cluster.request("DELETE", "batch/v1/jobs/parent", {"propagationPolicy": "Background"})
    cluster.until(lambda: cluster.job("child") is None and not cluster.pods())


def test_names_of_pods(cluster: Cluster, tmp_path: Path) -> None:
    ports = [{"name": "rendezvous", "port": 29500}]
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "w"}, "ports": ports}
    cluster.request("POST", "services", {"metadata": {"name": "workers"}, "spec": spec})
    cluster.on_pod(lambda pod: Script(after_s=float("inf"), on_sigterm=None))
    gang(cluster, pod={"subdomain": "workers", "terminationGracePeriodSeconds": 1000})
    pod = running(cluster, 2)[0]
    name = f"{pod['status']['podIP']} j-0.workers.lab.svc.cluster.local"
    cluster.until(lambda: name in (tmp_path / "hosts").read_text())
    cluster.request("DELETE", f"pods/{pod['metadata']['name']}")
    cluster.until(lambda: "deletionTimestamp" in cluster.pods("j")[0]["metadata"])
    assert name in (tmp_path / "hosts").read_text()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"}, "podReplacementPolicy"),
        ({"backoffLimitPerIndex": 1}, "backoffLimitPerIndex"),
        ({"successPolicy": {"rules": [{"succeededIndexes": "0"}]}}, "successPolicy"),
        ({"maxFailedIndexes": 1}, "backoffLimitPerIndex"),
        ({"podFailurePolicy": {"rules": [{"action": "FailIndex", **exits(3)}]}}, "FailIndex"),
        ({"podFailurePolicy": {"rules": [{"action": "FailJob", **exits(75, 64)}]}}, "ordered"),
    ],
)
def test_invalid(cluster: Cluster, spec: Object, problem: str) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "w", "image": "w:1"}]}}
    code, answer = cluster.request("POST", "batch/v1/jobs", {"metadata": {"name": "j"}, "spec": {"template": template, **spec}})
    assert code == 422
    assert problem in answer["message"]
