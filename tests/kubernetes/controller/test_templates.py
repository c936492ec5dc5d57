"""CronJob → Template → Job, and the graph of real recipes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from adainf.errors import BadInput
from adainf.kubernetes.controller.parse import read_attempt, read_pod
from adainf.kubernetes.controller.tasks import tasks_of
from adainf.kubernetes.controller.templates import Owner, RecipeRef, make_job, read_template
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.stages import STAGES

OWNER = Owner("adainf", "ab12cd34-0000", "ns")
SOURCE = RecipeRef("s3://b/r/recipes/0123456789ab.yaml", "f" * 64)


def cronjob(stage: str, **annotations: str) -> dict[str, Any]:
    env = [{"name": "ADAINF_RECIPE", "value": "/etc/adainf/recipe.yaml"}, {"name": "OTHER", "value": "$(ADAINF_RECIPE)"}]
    containers = [{"name": stage, "image": "i", "env": env}]
    labels = {"kueue.x-k8s.io/queue-name": "q"}
    spec: dict[str, Any] = {
        "completions": 2,
        "parallelism": 2,
        "template": {"metadata": {"labels": {"adainf.dev/gang": "workers"}}, "spec": {}},
    }
    spec["template"]["spec"] = {"containers": containers, "initContainers": [{"name": "doctor"}]}
    return {
        "metadata": {
            "name": f"adainf-{stage}",
            "annotations": {f"adainf.dev/{k.replace('_', '-')}": v for k, v in annotations.items()},
        },
        "spec": {"jobTemplate": {"metadata": {"labels": labels}, "spec": spec}},
    }


def test_a_job_is_its_template_plus_its_labels_and_owner() -> None:
    source = cronjob("pretrain")
    before = copy.deepcopy(source)
    job = make_job(read_template("pretrain", source), OWNER, "pretrain.adainf", 3, SOURCE, "c5")
    assert source == before, "the template was changed"
    meta, pod = job["metadata"], job["spec"]["template"]
    assert meta["name"] == "adainf-pretrain-adainf-ab12-3"
    assert meta["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    for labels in (meta["labels"], pod["metadata"]["labels"]):
        assert {k: v for k, v in labels.items() if k.startswith("adainf.dev/") and k != "adainf.dev/gang"} == {
            "adainf.dev/run": "adainf",
            "adainf.dev/stage": "pretrain",
            "adainf.dev/arm": "adainf",
            "adainf.dev/attempt": "3",
        }
    assert pod["metadata"]["labels"]["adainf.dev/gang"] == "workers"
    (owner,) = meta["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (OWNER.uid, False, False)
    env = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
    assert env == {
        "ADAINF_RECIPE": SOURCE.uri,
        "ADAINF_RECIPE_SHA256": SOURCE.sha256,
        "ADAINF_ARM": "adainf",
        "OTHER": "$(ADAINF_RECIPE)",
    }
    assert next(iter(env)) == "ADAINF_RECIPE", "a later variable may use it"
    assert pod["spec"]["initContainers"][0]["env"][0]["value"] == SOURCE.uri
    seen = read_attempt({**job, "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"}})
    assert (seen.task, seen.number, seen.started_with, seen.gang, seen.state) == ("pretrain.adainf", 3, "c5", True, "active")


def test_the_hash_covers_only_the_job_template() -> None:
    hashes = {read_template("fit", cronjob("fit", attempts=n)).hash for n in ("4", "5")}
    changed = cronjob("fit")
    changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] = "j"
    assert len(hashes) == 1
    assert read_template("fit", changed).hash not in hashes


@pytest.mark.parametrize(("text", "seconds"), [("900", 900), ("15m", 900), ("2h", 7200), ("30s", 30)])
def test_times(text: str, seconds: int) -> None:
    assert read_template("fit", cronjob("fit", start_timeout=text)).start_timeout_s == seconds


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [({"start_timeout": "soon"}, "start-timeout is not a duration"), ({"attempts": "0"}, "attempts is '0'")],
)
def test_invalid_annotations(annotations: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_template("fit", cronjob("fit", **annotations))


def test_long_names_and_unknown_containers() -> None:
    owner = Owner("a" * 40, "ab12", "ns")
    with pytest.raises(BadInput, match="more than 63 characters"):
        make_job(read_template("pretrain", cronjob("pretrain")), owner, "pretrain.vanilla", 1, SOURCE, "")
    with pytest.raises(BadInput, match="no container 'fit'"):
        read_template("fit", cronjob("generate"))


def graph(recipe: str, **after: str) -> dict[str, set[str]]:
    templates = {
        stage: read_template(stage, cronjob(stage, **({"after": after[stage]} if stage in after else {}))) for stage in STAGES
    }
    return {name: set(task.after) for name, task in tasks_of(load_recipe(f"recipes/{recipe}.yaml"), templates).items()}


def test_the_graph_of_the_demo() -> None:
    tasks = graph("demo")
    assert list(tasks) == sorted(tasks, key=lambda name: [*tasks].index(name))
    assert tasks["ingest"] == set()
    assert tasks["pretrain.none"] == {"ingest"}
    assert tasks["measure"] == {"ingest", "generate", "pretrain.none"}
    assert tasks["pretrain.vanilla"] == {"ingest", "generate"}
    assert "plan" in tasks["pretrain.adainf"]
    assert tasks["evaluate"] >= {"pretrain.none", "pretrain.vanilla", "pretrain.adainf"}
    assert tasks["report"] == set(tasks) - {"report"}


def test_annotations_only_add_dependencies() -> None:
    assert graph("demo", fit="pretrain.none")["fit"] == {"ingest", "pretrain.none"}
    assert graph("demo", evaluate="")["evaluate"] == graph("demo")["evaluate"]
    assert "pretrain.none" in graph("demo", evaluate="pretrain")["evaluate"]


def test_unknown_names_and_cycles() -> None:
    with pytest.raises(BadInput, match="names 'fitt', which is not a task"):
        graph("demo", generate="fitt")
    with pytest.raises(BadInput, match="form a cycle"):
        graph("demo", ingest="report")


def test_precedence_of_job_conditions() -> None:
    job = make_job(read_template("fit", cronjob("fit")), OWNER, "fit", 1, SOURCE, "")
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": "FailureTarget", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:01:00Z"}
    ]
    job["status"] = {"conditions": conditions}
    assert (read_attempt(job).state, read_attempt(job).since - read_attempt(job).created) == ("ending", 60)
    conditions.append({**conditions[0], "type": "Failed"})
    assert read_attempt(job).state == "failed"


def test_reasons_of_a_waiting_pod() -> None:
    meta = {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"batch.kubernetes.io/job-name": "j"}}
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    seen = read_pod({"metadata": meta, "status": {"phase": "Pending", "containerStatuses": [waiting]}})
    assert (seen.job, seen.waiting, seen.message) == ("j", "ErrImagePull", "no such image")
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    assert read_pod({"metadata": meta, "status": {"conditions": [unplaced]}}).waiting == "Unschedulable"
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert read_pod({"metadata": meta, "status": {"containerStatuses": [creating]}}).waiting == ""


def test_an_unreachable_node_uses_no_grace_period() -> None:
    meta: dict[str, Any] = {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert read_pod({"metadata": meta, "status": {}}).deleted is None
    meta |= {"deletionTimestamp": "2026-01-01T00:05:00Z", "deletionGracePeriodSeconds": 300}

    def grace_left_s(ready: str, containers: str) -> float:
        conditions = [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}]
        pod = read_pod({"metadata": meta, "status": {"phase": "Running", "conditions": conditions}})
        return (pod.deleted or 0) - pod.created

    assert grace_left_s("True", "True") == 300
    assert grace_left_s("False", "True") == 0  # as on a real cluster, 60 s after the power of a node was cut
    assert grace_left_s("False", "False") == 300  # its containers have ended, and its kubelet reports it
