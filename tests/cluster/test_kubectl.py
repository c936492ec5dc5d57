"""Real kubectl, and the API: versions, conflicts, watches, dry runs, rights, faults."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cluster import Cluster, Exit, Process, Script
from tests.cluster.job_controller import condition
from tests.cluster.sketch import SKETCH
from tests.cluster.store import Object

FOREVER = Script(after_s=float("inf"), log="step 1\n")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as cluster:
        cluster.on_pod(lambda pod: FOREVER)
        yield cluster


def outcomes(printed: str) -> set[str]:
    return {line.split()[-1] for line in printed.splitlines()}


def test_apply_twice_changes_nothing(cluster: Cluster) -> None:
    assert outcomes(cluster.apply(SKETCH)) == {"created"}
    cluster.until(lambda: [pod for pod in cluster.pods("adainf") if condition(pod, "Ready")])  # status written
    assert outcomes(cluster.apply(SKETCH)) == {"unchanged"}
    assert [call for call in cluster.calls if call.verb in ("patch", "update")] == []


def test_quantities_are_strings(cluster: Cluster) -> None:
    unquoted = SKETCH.replace('nvidia.com/gpu: "8"', "nvidia.com/gpu: 8")
    assert unquoted != SKETCH
    cluster.apply(unquoted)
    assert "cronjob.batch/adainf-pretrain configured" in cluster.apply(unquoted)


def test_another_image(cluster: Cluster) -> None:
    """The template of a CronJob is mutable, that of a Job is not."""
    cluster.apply(SKETCH)
    assert "cronjob.batch/adainf-pretrain configured" in cluster.apply(SKETCH.replace("adainf-train:1", "adainf-train:2"))
    refused = cluster.kubectl("apply", "-f", "-", stdin=SKETCH.replace("controller:1", "controller:2"), check=False)
    assert refused.returncode == 1
    assert "field is immutable" in refused.stderr
    assert "\njob.batch" not in refused.stdout


def test_server_side_apply(cluster: Cluster) -> None:
    assert outcomes(cluster.kubectl("apply", "--server-side", "-f", "-", stdin=SKETCH).stdout) == {"serverside-applied"}
    version = cluster.until(lambda: cluster.store.get("cronjobs", "lab", "adainf-pretrain"))
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=SKETCH)
    assert cluster.store.get("cronjobs", "lab", "adainf-pretrain") == version


def test_delete_cascades(cluster: Cluster) -> None:
    cluster.apply(SKETCH)
    cluster.until(lambda: cluster.pods("adainf"))
    cluster.kubectl("delete", "job/adainf")
    assert cluster.job("adainf") is None
    cluster.until(lambda: not cluster.pods())
    assert cluster.store.get("cronjobs", "lab", "adainf-pretrain")
    cluster.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=SKETCH)
    assert cluster.store.list("roles") == cluster.store.list("cronjobs") == []


def test_look(cluster: Cluster) -> None:
    cluster.apply(SKETCH)
    pod = cluster.until(lambda: [pod for pod in cluster.pods("adainf") if condition(pod, "Ready")])[0]
    assert "adainf" in cluster.kubectl("get", "jobs,pods,cronjobs,nodes").stdout
    assert f"Created pod: {pod['metadata']['name']}" in cluster.kubectl("describe", "job/adainf").stdout
    assert cluster.kubectl("logs", "job/adainf").stdout == "step 1\n"
    selected = cluster.kubectl(
        "get", "pods", "-l", "app.kubernetes.io/name=adainf,adainf.dev/gang!=workers", "-o", "name"
    ).stdout
    assert selected == f"pod/{pod['metadata']['name']}\n"


def test_wait(cluster: Cluster) -> None:
    cluster.apply(SKETCH)
    cluster.until(lambda: [pod for pod in cluster.pods("adainf") if condition(pod, "Ready")])
    pod = cluster.pods("adainf")[0]

    def finish() -> None:
        """Finish the pod once kubectl watches, so that the watch reports the end."""
        cluster.until(lambda: [call for call in cluster.calls if call.verb == "watch"])
        cluster.finish(pod, Exit(0))

    threading.Thread(target=finish).start()
    cluster.kubectl("wait", "--for=condition=complete", "job/adainf", "--timeout=10s")


def test_protobuf_is_refused(cluster: Cluster) -> None:
    cluster.apply(SKETCH)
    refused = cluster.kubectl("create", "job", "try", "--from=cronjob/adainf-pretrain", check=False)
    assert "accepted media types include: application/json" in refused.stderr
    assert cluster.job("try") is None


def test_dry_run_stores_nothing(cluster: Cluster) -> None:
    assert outcomes(cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=SKETCH).stdout) == {"run)"}
    assert cluster.store.list("jobs") == cluster.store.list("cronjobs") == cluster.pods() == []


def test_names_and_versions(cluster: Cluster) -> None:
    config = {"metadata": {"name": "a"}, "data": {"k": "1"}}
    code, first = cluster.request("POST", "configmaps", config)
    assert code == 201
    code, answer = cluster.request("POST", "configmaps", config)
    assert (code, answer["reason"]) == (409, "AlreadyExists")
    assert cluster.request("PUT", "configmaps/a", first | {"data": {"k": "2"}})[0] == 200
    code, answer = cluster.request("PUT", "configmaps/a", first | {"data": {"k": "3"}})
    assert (code, answer["reason"]) == (409, "Conflict")
    cluster.request("DELETE", "configmaps/a")
    assert cluster.request("POST", "configmaps", config)[1]["metadata"]["uid"] != first["metadata"]["uid"]


def test_generation_counts_changes_of_the_spec(cluster: Cluster) -> None:
    cluster.apply(SKETCH)

    def change(body: Object) -> int:
        kind = "application/merge-patch+json"
        return int(cluster.request("PATCH", "batch/v1/cronjobs/adainf-pretrain", body, kind=kind)[1]["metadata"]["generation"])

    assert change({"metadata": {"annotations": {"a": "b"}}}) == 1
    assert change({"spec": {"schedule": "1 0 31 2 *"}}) == 2


def watch(cluster: Cluster, version: str, found: list[Object], account: str = "") -> threading.Thread:
    url = f"{cluster.url}/api/v1/namespaces/lab/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=5"
    headers = {"Authorization": f"Bearer {cluster.token(account)}"} if account else {}

    def read() -> None:
        with urlopen(Request(url, headers=headers), timeout=10) as lines:
            found.extend(json.loads(line) for line in lines)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_watch(cluster: Cluster) -> None:
    found: list[Object] = []
    _, listed = cluster.request("GET", "configmaps")
    reader = watch(cluster, listed["metadata"]["resourceVersion"], found)
    _, created = cluster.request("POST", "configmaps", {"metadata": {"name": "a"}})
    cluster.request("PATCH", "configmaps/a", {"data": {"k": "1"}}, kind="application/merge-patch+json")
    cluster.request("DELETE", "configmaps/a")
    cluster.request("POST", "secrets", {"metadata": {"name": "b"}})
    time.sleep(0.2)
    cluster.faults.drop_watches()
    reader.join()
    assert [event["type"] for event in found] == ["ADDED", "MODIFIED", "DELETED"]
    assert found[0]["object"] == created


def test_watch_from_an_expired_version(cluster: Cluster) -> None:
    _, listed = cluster.request("GET", "configmaps")
    cluster.store.forget()
    found: list[Object] = []
    watch(cluster, listed["metadata"]["resourceVersion"], found).join()
    assert [(event["type"], event["object"]["code"], event["object"]["reason"]) for event in found] == [
        ("ERROR", 410, "Expired")
    ]


def test_rights(cluster: Cluster) -> None:
    """A rule with resourceNames grants no lists and no other names; calls without a right get 403; all calls are recorded."""
    cluster.apply(SKETCH)

    def code(method: str, path: str, body: object = None) -> int:
        return cluster.request(method, path, body, account="adainf-controller")[0]

    assert code("GET", "batch/v1/cronjobs/adainf-pretrain") == 200
    assert code("GET", "batch/v1/cronjobs") == code("GET", "batch/v1/cronjobs/other") == 403
    assert code("GET", "pods") == 200
    assert code("DELETE", "batch/v1/jobs/adainf") == 403
    assert (
        code("POST", "events.k8s.io/v1/events", {"metadata": {"name": "e"}, "regarding": {"name": "adainf"}, "note": "n"})
        == 201
    )
    assert cluster.request("GET", "pods", account="adainf-stage")[0] == 403
    assert cluster.job("adainf")
    called = {(call.verb, call.group, call.resource, call.name) for call in cluster.calls_of("adainf-controller")}
    assert ("get", "batch", "cronjobs", "adainf-pretrain") in called
    assert ("delete", "batch", "jobs", "adainf") in called


def test_events_of_both_groups(cluster: Cluster) -> None:
    event = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Job", "name": "adainf"},
        "reason": "Why",
        "note": "n",
        "type": "Normal",
    }
    cluster.request("POST", "events.k8s.io/v1/events", event)
    assert cluster.request("GET", "events/e")[1]["message"] == "n"
    assert cluster.request("GET", "events/e")[1]["involvedObject"]["name"] == "adainf"
    assert cluster.request("GET", "events.k8s.io/v1/events/e")[1]["note"] == "n"


def test_faults(cluster: Cluster) -> None:
    cluster.apply(SKETCH)
    cluster.faults.refuse(429, times=1, retry_after_s=7)
    cluster.faults.refuse(500, when=lambda call: call.resource == "jobs")
    account = "adainf-controller"
    assert cluster.request("GET", "pods", account=account)[0] == 429
    assert cluster.request("GET", "pods", account=account)[0] == 200
    assert cluster.request("GET", "batch/v1/jobs", account=account)[0] == 500
    seen: list[str] = []
    cluster.faults.after = lambda call: seen.append(call.resource)
    cluster.request("GET", "pods", account=account)
    assert seen == ["pods"]


PROGRAM = """
import json, os, pathlib, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
name = f"w-0.workers.{os.environ['SPACE']}.svc.cluster.local"
for _ in range(100):
    try:
        address = socket.getaddrinfo(name, 80)[0][4][0]
        break
    except socket.gaierror:
        time.sleep(0.05)
report = [address, os.environ["POD_IP"], os.environ["JOB_COMPLETION_INDEX"], os.environ["KEY"], sys.argv[1:]]
report.append(pathlib.Path(os.environ["RECIPE"]).read_text())
pathlib.Path(os.environ["ADAINF_TERMINATION_LOG"]).write_text(json.dumps(report))
print("up", flush=True)
time.sleep(60)
"""


def real_pod() -> Object:
    env = [
        {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "RECIPE", "value": "/etc/adainf/recipe.yaml"},
    ]
    container = {
        "name": "w", "image": "w:1", "command": ["python", "-c", PROGRAM],
        "args": ["$(RECIPE)", "$(KEY)", "$$(KEY)", "$(OTHER)"], "env": env, "envFrom": [{"secretRef": {"name": "keys"}}],
        "volumeMounts": [{"name": "recipe", "mountPath": "/etc/adainf"}],
    }  # fmt: skip
    volumes = [{"name": "recipe", "configMap": {"name": "recipe"}}]
    return {"restartPolicy": "Never", "subdomain": "workers", "containers": [container], "volumes": volumes}


def test_real_pods(cluster: Cluster) -> None:
    """Two processes: DNS names, environment, arguments, files, SIGTERM, the termination message and logs."""
    cluster.on_pod(lambda pod: Process())
    cluster.request("POST", "secrets", {"metadata": {"name": "keys"}, "stringData": {"KEY": "secret"}})
    cluster.request("POST", "configmaps", {"metadata": {"name": "recipe"}, "data": {"recipe.yaml": "name: tiny"}})
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "w"}, "ports": [{"port": 1}]}
    cluster.request("POST", "services", {"metadata": {"name": "workers"}, "spec": spec})
    template = {"metadata": {"labels": {"app": "w"}}, "spec": real_pod()}
    job = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0, "template": template}
    cluster.request("POST", "batch/v1/jobs", {"metadata": {"name": "w"}, "spec": job})
    first, second = cluster.until(
        lambda: [pod for pod in cluster.pods("w") if cluster.kubelet.log(pod) == "up\n"][1:] and cluster.pods("w")
    )
    cluster.request("DELETE", f"pods/{second['metadata']['name']}")
    cluster.until_ended("w")
    assert cluster.job("w")["status"]["failed"] == 2
    # The message is in the last status before the pod was deleted.
    last = [each for _, kind, of, each in cluster.store._journal if of == "pods" and kind == "DELETED"]
    messages = {each["spec"]["hostname"]: each["status"]["containerStatuses"][0]["state"]["terminated"] for each in last}
    assert {state["exitCode"] for state in messages.values()} == {75}
    master, own, index, key, words, recipe = json.loads(messages["w-1"]["message"])
    assert (master, own) == (first["status"]["podIP"], second["status"]["podIP"])
    assert (index, key, recipe) == ("1", "secret", "name: tiny")
    assert words[0].endswith("/recipe.yaml")
    assert words[1:] == ["secret", "$(KEY)", "$(OTHER)"]


def test_addresses_of_pods_can_be_bound() -> None:
    with socket.socket() as listener:
        listener.bind(("127.1.0.2", 0))
