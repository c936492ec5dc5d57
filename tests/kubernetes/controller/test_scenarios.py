"""What clusters do to a chain: each time jobs/adainf.yaml by real kubectl, and the controller as its real process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adainf.pipeline.graph import tasks
from adainf.pipeline.load_recipe import load_recipe
from tests.cluster import Cluster, Exit, Script
from tests.cluster.access import Call
from tests.cluster.store import Object
from tests.kubernetes.controller.chain import FOREVER, RECIPE, Chain, Play, task

TASKS = sorted(tasks(load_recipe(RECIPE)))
ONCE = [f"{name}-1" for name in TASKS]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A second of it takes 1 ms, so that back-offs of the Job controller are no matter."""
    with Cluster(tmp_path, speed=1000) as cluster:
        yield cluster


@pytest.fixture
def chain(cluster: Cluster, tmp_path: Path) -> Chain:
    return Chain(cluster, tmp_path)


def hold(name: str) -> Play:
    """A play in which the first pods of one task wait for the test."""
    return lambda pod: FOREVER if task(pod["metadata"]["labels"]) == name else None


def test_the_chain(chain: Chain) -> None:
    """From apply to Complete."""
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE
    assert chain.log().rstrip().endswith("every stage is done")


def test_apply_twice(chain: Chain) -> None:
    chain.play = hold("fit")
    chain.apply()
    pod = chain.pod("fit")
    assert {line.split()[-1] for line in chain.apply().splitlines()} == {"unchanged"}
    assert chain.pod("fit")["metadata"]["uid"] == pod["metadata"]["uid"]
    chain.finish(pod)
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


def test_another_image_mid_run(chain: Chain, cluster: Cluster) -> None:
    """The running stage goes on, the next begins with the new image, and the drift is told."""
    chain.play = hold("fit")
    chain.apply()
    pod = chain.pod("fit")
    chain.images = {"adainf-fit": "fit:2", "adainf-report": "report:2"}
    chain.apply()
    chain.kill_controller()  # its successor reads the templates now, and not within the minute
    cluster.until(lambda: "TemplateChanged" in chain.notes(), 30)
    chain.finish(pod)
    assert chain.end()["type"] == "Complete"
    pods = {task(pod["metadata"]["labels"]): pod["spec"] for pod in cluster.pods()}
    images = {name: spec["containers"][0]["image"] for name, spec in pods.items()}
    assert images["fit"] != "fit:2"
    assert images["report"] == "report:2"


def hold_first(name: str) -> Play:
    """The same of the first attempt alone."""

    def play(pod: Object) -> Script | None:
        label = pod["metadata"]["labels"]
        return FOREVER if (task(label), label.get("adainf.dev/attempt")) == (name, "1") else None

    return play


def test_preemption_of_one_pod_of_a_gang(chain: Chain, cluster: Cluster) -> None:
    chain.play = hold_first("pretrain.none")
    chain.apply()
    cluster.preempt(chain.pod("pretrain.none", index=1))
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == sorted([*ONCE, "pretrain.none-2"])
    assert "disrupted" in chain.notes()["AttemptFailed"]


def test_out_of_memory(chain: Chain) -> None:
    def play(pod: Object) -> Script | None:
        label = pod["metadata"]["labels"]
        first = (task(label), label["adainf.dev/attempt"]) == ("fit", "1")
        return Script(Exit(137, reason="OOMKilled")) if first else None

    chain.play = play
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert "fit-2" in chain.jobs()
    assert "OOMKilled" in chain.notes()["AttemptFailed"]


def test_a_stage_that_refuses_its_input(chain: Chain) -> None:
    def play(pod: Object) -> Script | None:
        if task(pod["metadata"]["labels"]) != "ingest":
            return None
        chain.record(pod, 64, "no image is left after the filter; lower it")
        return Script(Exit(64))

    chain.play = play
    chain.apply()
    ended = chain.end()
    assert (ended["type"], ended["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 64" in ended["message"]
    assert "no image is left" in chain.notes()["Failed"]
    assert "no image is left" in chain.log().splitlines()[-1]
    assert chain.jobs() == ["ingest-1"]


def test_dead_node(tmp_path: Path) -> None:
    """A pod that hangs in Terminating does not keep the next attempt, nor does a grace that nobody is left to use."""
    small = {"cpu": "64", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "110"}
    nodes = {"a": small} | {name: small | {"nvidia.com/gpu": "1"} for name in "bcdef"}
    with Cluster(tmp_path, nodes, speed=1000) as cluster:
        chain = Chain(cluster, tmp_path, hold_first("pretrain.none"))
        chain.grace_s = 600
        chain.apply()
        lost = chain.pod("pretrain.none", index=1)
        cluster.node(lost["spec"]["nodeName"]).kill()
        assert chain.end()["type"] == "Complete"
        assert "pretrain.none-2" in chain.jobs()
        assert [pod["metadata"]["uid"] for pod in cluster.pods() if "deletionTimestamp" in pod["metadata"]] == [
            lost["metadata"]["uid"]
        ]
        assert "hangs on node" in chain.notes()["PodStuck"]


def test_quota_of_jobs_ends_it_before_it_begins(chain: Chain, cluster: Cluster) -> None:
    cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"count/jobs.batch": "1"}}})
    chain.apply()
    assert chain.end()["type"] == "Failed"
    assert "exceeded quota: small" in chain.notes()["Failed"]
    assert chain.started == []


def test_image_that_cannot_be_pulled(chain: Chain, cluster: Cluster) -> None:
    chain.images = {"adainf-ingest": "adainf-train:none"}
    cluster.kubelet.missing_images.add("adainf-train:none")
    chain.apply()
    cluster.until(lambda: {"ErrImagePull", "ImagePullBackOff"} & set(chain.notes()), 60)
    assert chain.started == []


def test_delete_and_apply_resumes(chain: Chain, cluster: Cluster) -> None:
    chain.play = hold("plan")
    chain.apply()
    chain.pod("plan")
    cluster.kubectl("delete", "job/adainf")
    cluster.until(lambda: not cluster.store.list("jobs") and not cluster.pods())
    chain.play = lambda pod: None
    chain.started.clear()
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert not {"ingest", "fit", "generate", "pretrain.none"} & set(chain.started)


def test_a_job_of_the_same_name(chain: Chain, cluster: Cluster) -> None:
    """409: made from another template than that of now, the chain ends and says which."""
    chain.apply()
    owner = cluster.until(lambda: cluster.job("adainf"))
    assert owner
    name = f"adainf-ingest-{owner['metadata']['uid'][:4]}-1"
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "ingest", "image": "other"}]}}
    labels = {"adainf.dev/stage": "ingest", "adainf.dev/attempt": "1"}
    stranger = {"metadata": {"name": name, "labels": labels}, "spec": {"suspend": True, "template": pod}}
    assert cluster.request("POST", "batch/v1/jobs", stranger)[0] == 201, "made before the controller is up"
    assert chain.end()["type"] == "Failed"
    assert f"Job/{name} is there already, made from another template" in chain.notes()["Failed"]


def test_an_api_that_stumbles(chain: Chain, cluster: Cluster) -> None:
    cluster.faults.refuse(429, times=2, when=lambda call: call.verb == "create", retry_after_s=0)
    cluster.faults.refuse(500, times=2, when=lambda call: call.verb in ("list", "watch"))
    cluster.faults.refuse(503, times=2, when=lambda call: call.resource == "cronjobs")
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


def test_watches_that_break(chain: Chain, cluster: Cluster) -> None:
    """Dropped, and with a version that the server has forgotten."""

    def break_watches(call: Call) -> None:
        if call.verb == "create" and cluster.job("adainf") and len(chain.started) in (1, 2):
            cluster.store.forget()
            cluster.faults.drop_watches()

    cluster.faults.after = break_watches
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_after_creations(chain: Chain, cluster: Cluster, every: int) -> None:
    """SIGKILL when the server has made a Job and before it says so: the next one takes it over."""
    made: set[str] = set()
    kills: list[Call] = []

    def kill(call: Call) -> None:
        jobs = {job["metadata"]["name"] for job in cluster.store.list("jobs")} - {"adainf"}
        if jobs > made and len(jobs) % every == 0:
            kills.append(call)
            chain.kill_controller()
        made.update(jobs)

    cluster.faults.after = kill
    chain.apply()
    assert chain.end(120)["type"] == "Complete"
    assert chain.jobs() == ONCE
    assert len(kills) == len(TASKS) // every


@pytest.mark.slow
def test_killed_after_each_call(tmp_path: Path) -> None:
    """The n-th call of the first controller, for each n: the same end."""
    n, calls = 0, 1
    while n < calls:
        folder = tmp_path / str(n)
        folder.mkdir()
        with Cluster(folder, speed=1000) as cluster:
            chain = Chain(cluster, folder)
            seen: list[Call] = []

            def after(
                call: Call, seen: list[Call] = seen, cluster: Cluster = cluster, chain: Chain = chain, n: int = n
            ) -> None:
                if not call.user.endswith(":adainf-controller"):
                    return
                seen.append(call)
                if len(seen) == n + 1:
                    chain.kill_controller()

            cluster.faults.after = after
            chain.apply()
            assert chain.end()["type"] == "Complete", n
            assert chain.jobs() == ONCE, n
            calls = max(calls, len(seen) // 2)
        n += 1
