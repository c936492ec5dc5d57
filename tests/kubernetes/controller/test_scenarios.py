"""Failures of a cluster: jobs/adainf.yaml applied by real kubectl, and the controller as a real process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adainf.pipeline.graph import tasks
from adainf.pipeline.load_recipe import load_recipe
from tests.cluster import Cluster, Exit, Script
from tests.cluster.access import Call
from tests.cluster.store import Object
from tests.kubernetes.controller.pipeline import FOREVER, RECIPE, Pipeline, Play, task

TASKS = sorted(tasks(load_recipe(RECIPE)))
ONCE = [f"{name}-1" for name in TASKS]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One second of the cluster takes 1 ms, so the back-off of the Job controller does not matter."""
    with Cluster(tmp_path, speed=1000) as cluster:
        yield cluster


@pytest.fixture
def pipeline(cluster: Cluster, tmp_path: Path) -> Pipeline:
    return Pipeline(cluster, tmp_path)


def hold(name: str) -> Play:
    """A play in which the pods of one task run until the test ends them."""
    return lambda pod: FOREVER if task(pod["metadata"]["labels"]) == name else None


def test_the_pipeline(pipeline: Pipeline) -> None:
    """From apply to Complete."""
    pipeline.apply()
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE
    assert pipeline.log().rstrip().endswith("every stage is done")


def test_apply_twice(pipeline: Pipeline) -> None:
    pipeline.play = hold("fit")
    pipeline.apply()
    pod = pipeline.pod("fit")
    assert {line.split()[-1] for line in pipeline.apply().splitlines()} == {"unchanged"}
    assert pipeline.pod("fit")["metadata"]["uid"] == pod["metadata"]["uid"]
    pipeline.finish(pod)
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE


def test_another_image_mid_run(pipeline: Pipeline, cluster: Cluster) -> None:
    """The running stage continues, the next one uses the new image, and an Event reports the drift."""
    pipeline.play = hold("fit")
    pipeline.apply()
    pod = pipeline.pod("fit")
    pipeline.images = {"adainf-fit": "fit:2", "adainf-report": "report:2"}
    pipeline.apply()
    pipeline.kill_controller()  # the new process reads the templates at once, not within a minute
    cluster.until(lambda: "TemplateChanged" in pipeline.notes(), 30)
    pipeline.finish(pod)
    assert pipeline.end()["type"] == "Complete"
    pods = {task(pod["metadata"]["labels"]): pod["spec"] for pod in cluster.pods()}
    images = {name: spec["containers"][0]["image"] for name, spec in pods.items()}
    assert images["fit"] != "fit:2"
    assert images["report"] == "report:2"


def test_an_invalid_recipe_mid_run(pipeline: Pipeline, cluster: Cluster) -> None:
    """All stages run by the last valid recipe, which a new process takes from the run. Then the pipeline names the error."""
    pipeline.env["ADAINF_FIX_S"] = "1"
    pipeline.play = hold("fit")
    pipeline.apply()
    pod = pipeline.pod("fit")
    cluster.until(lambda: "pretrain.none-1" in pipeline.jobs(), 30)
    typo = {"data": {"recipe.yaml": f"{RECIPE.read_text()}armz: [none]\n"}}
    cluster.kubectl("patch", "configmap/adainf-recipe", "--type=merge", "-p", json.dumps(typo))
    pipeline.kill_controller()  # the new process mounts the new ConfigMap
    cluster.until(lambda: "RecipeInvalid" in pipeline.notes(), 30)
    assert pipeline.pod("fit")["metadata"]["uid"] == pod["metadata"]["uid"]
    pipeline.finish(pod)
    assert pipeline.end()["type"] == "Failed"
    assert "armz is not a setting" in pipeline.notes()["Failed"]
    assert pipeline.jobs() == ONCE


def test_a_template_deleted_mid_run(pipeline: Pipeline, cluster: Cluster) -> None:
    """The running stage continues, and so does the pipeline once the template is back."""
    pipeline.play = hold("fit")
    pipeline.apply()
    pod = pipeline.pod("fit")
    cluster.kubectl("delete", "cronjob/adainf-report")
    pipeline.kill_controller()  # the new process reads the templates at once
    cluster.until(lambda: "TemplateInvalid" in pipeline.notes(), 30)
    assert pipeline.pod("fit")["metadata"]["uid"] == pod["metadata"]["uid"]
    pipeline.apply()
    pipeline.kill_controller()
    pipeline.finish(pod)
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE


def hold_first(name: str) -> Play:
    """Like `hold`, for the first attempt only."""

    def play(pod: Object) -> Script | None:
        label = pod["metadata"]["labels"]
        return FOREVER if (task(label), label.get("adainf.dev/attempt")) == (name, "1") else None

    return play


def test_preemption_of_one_pod_of_a_gang(pipeline: Pipeline, cluster: Cluster) -> None:
    pipeline.play = hold_first("pretrain.none")
    pipeline.apply()
    cluster.preempt(pipeline.pod("pretrain.none", index=1))
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == sorted([*ONCE, "pretrain.none-2"])
    assert "disrupted" in pipeline.notes()["AttemptFailed"]


def test_out_of_memory(pipeline: Pipeline) -> None:
    def play(pod: Object) -> Script | None:
        label = pod["metadata"]["labels"]
        first = (task(label), label["adainf.dev/attempt"]) == ("fit", "1")
        return Script(Exit(137, reason="OOMKilled")) if first else None

    pipeline.play = play
    pipeline.apply()
    assert pipeline.end()["type"] == "Complete"
    assert "fit-2" in pipeline.jobs()
    assert "OOMKilled" in pipeline.notes()["AttemptFailed"]


def test_a_stage_that_rejects_its_input(pipeline: Pipeline) -> None:
    def play(pod: Object) -> Script | None:
        if task(pod["metadata"]["labels"]) != "ingest":
            return None
        pipeline.record(pod, 64, "no image is left after the filter; lower it")
        return Script(Exit(64))

    pipeline.play = play
    pipeline.apply()
    ended = pipeline.end()
    assert (ended["type"], ended["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 64" in ended["message"]
    assert "no image is left" in pipeline.notes()["Failed"]
    assert "no image is left" in pipeline.log().splitlines()[-1]
    assert pipeline.jobs() == ["ingest-1"]


def test_dead_node(tmp_path: Path) -> None:
    """A pod that is stuck in Terminating does not delay the next attempt, and neither does its grace period."""
    small = {"cpu": "64", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "110"}
    nodes = {"a": small} | {name: small | {"nvidia.com/gpu": "1"} for name in "bcdef"}
    with Cluster(tmp_path, nodes, speed=1000) as cluster:
        pipeline = Pipeline(cluster, tmp_path, hold_first("pretrain.none"))
        pipeline.grace_s = 600
        pipeline.apply()
        lost = pipeline.pod("pretrain.none", index=1)
        cluster.node(lost["spec"]["nodeName"]).kill()
        assert pipeline.end()["type"] == "Complete"
        assert "pretrain.none-2" in pipeline.jobs()
        assert [pod["metadata"]["uid"] for pod in cluster.pods() if "deletionTimestamp" in pod["metadata"]] == [
            lost["metadata"]["uid"]
        ]
        assert "is stuck on node" in pipeline.notes()["PodStuckTerminating"]


def test_a_quota_of_jobs_fails_the_dry_run(pipeline: Pipeline, cluster: Cluster) -> None:
    cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"count/jobs.batch": "1"}}})
    pipeline.apply()
    assert pipeline.end()["type"] == "Failed"
    assert "exceeded quota: small" in pipeline.notes()["Failed"]
    assert pipeline.started == []


def test_image_that_cannot_be_pulled(pipeline: Pipeline, cluster: Cluster) -> None:
    pipeline.images = {"adainf-ingest": "adainf-train:none"}
    cluster.kubelet.missing_images.add("adainf-train:none")
    pipeline.apply()
    cluster.until(lambda: {"ErrImagePull", "ImagePullBackOff"} & set(pipeline.notes()), 60)
    assert pipeline.started == []


def test_delete_and_apply_resumes(pipeline: Pipeline, cluster: Cluster) -> None:
    pipeline.play = hold("plan")
    pipeline.apply()
    pipeline.pod("plan")
    cluster.kubectl("delete", "job/adainf")
    cluster.until(lambda: not cluster.store.list("jobs") and not cluster.pods())
    pipeline.play = lambda pod: None
    pipeline.started.clear()
    pipeline.apply()
    assert pipeline.end()["type"] == "Complete"
    assert not {"ingest", "fit", "generate", "pretrain.none"} & set(pipeline.started)


def test_a_job_of_the_same_name(pipeline: Pipeline, cluster: Cluster) -> None:
    """409 with another template: the pipeline ends and names it."""
    pipeline.apply()
    owner = cluster.until(lambda: cluster.job("adainf"))
    assert owner
    name = f"adainf-ingest-{owner['metadata']['uid'][:4]}-1"
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "ingest", "image": "other"}]}}
    labels = {"adainf.dev/stage": "ingest", "adainf.dev/attempt": "1"}
    stranger = {"metadata": {"name": name, "labels": labels}, "spec": {"suspend": True, "template": pod}}
    assert cluster.request("POST", "batch/v1/jobs", stranger)[0] == 201, "created before the controller runs"
    assert pipeline.end()["type"] == "Failed"
    assert f"Job/{name} already exists with another template" in pipeline.notes()["Failed"]


def test_transient_api_errors(pipeline: Pipeline, cluster: Cluster) -> None:
    cluster.faults.refuse(429, times=2, when=lambda call: call.verb == "create", retry_after_s=0)
    cluster.faults.refuse(500, times=2, when=lambda call: call.verb in ("list", "watch"))
    cluster.faults.refuse(503, times=2, when=lambda call: call.resource == "cronjobs")
    pipeline.apply()
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE


def test_broken_watches(pipeline: Pipeline, cluster: Cluster) -> None:
    """Dropped watches, and an expired resource version."""

    def break_watches(call: Call) -> None:
        if call.verb == "create" and cluster.job("adainf") and len(pipeline.started) in (1, 2):
            cluster.store.forget()
            cluster.faults.drop_watches()

    cluster.faults.after = break_watches
    pipeline.apply()
    assert pipeline.end()["type"] == "Complete"
    assert pipeline.jobs() == ONCE


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_after_creations(pipeline: Pipeline, cluster: Cluster, every: int) -> None:
    """SIGKILL after the server created a Job and before it responds: the next process adopts the Job."""
    made: set[str] = set()
    kills: list[Call] = []

    def kill(call: Call) -> None:
        jobs = {job["metadata"]["name"] for job in cluster.store.list("jobs")} - {"adainf"}
        if jobs > made and len(jobs) % every == 0:
            kills.append(call)
            pipeline.kill_controller()
        made.update(jobs)

    cluster.faults.after = kill
    pipeline.apply()
    assert pipeline.end(120)["type"] == "Complete"
    assert pipeline.jobs() == ONCE
    assert len(kills) == len(TASKS) // every


@pytest.mark.slow
def test_killed_after_each_call(tmp_path: Path) -> None:
    """SIGKILL after the n-th call of the first process, for each n: the same outcome."""
    n, calls = 0, 1
    while n < calls:
        folder = tmp_path / str(n)
        folder.mkdir()
        with Cluster(folder, speed=1000) as cluster:
            pipeline = Pipeline(cluster, folder)
            seen: list[Call] = []

            def after(
                call: Call, seen: list[Call] = seen, cluster: Cluster = cluster, pipeline: Pipeline = pipeline, n: int = n
            ) -> None:
                if not call.user.endswith(":adainf-controller"):
                    return
                seen.append(call)
                if len(seen) == n + 1:
                    pipeline.kill_controller()

            cluster.faults.after = after
            pipeline.apply()
            assert pipeline.end()["type"] == "Complete", n
            assert pipeline.jobs() == ONCE, n
            calls = max(calls, len(seen) // 2)
        n += 1
