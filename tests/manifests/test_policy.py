"""Rules that no schema checks: reliability of the pipeline and security of its pods."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import yaml

from adainf import errors
from adainf.cli import arguments
from adainf.kubernetes.render import K8S
from adainf.pipeline.graph import build_graph
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.stages import STAGES
from adainf.recipe import Add, Arm, Positives, Recipe, Verify
from tests.manifests.objects import (
    JOB_FILES,
    OVERLAYS,
    RENDERINGS,
    Object,
    Pods,
    objects_of,
    pods,
    rendered,
    template,
)

RUN_ARMS: tuple[Arm, ...] = get_args(Arm)
GANGS = [name for name, stage in STAGES.items() if stage.is_gang]
SHARED = [name for name, stage in STAGES.items() if stage.parallelism == "indexed"]


@pytest.fixture(params=[*JOB_FILES, *RENDERINGS])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return objects_of(request.param)


def test_pod_security_restricted(objects: list[Object], request: pytest.FixtureRequest) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards, "Restricted"
    for each in pods(objects):
        pod = each.spec
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "configMap", "secret"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = dict(container["securityContext"])
            if "rdma" in request.node.name:  # documents that it needs more
                context["capabilities"] = {"drop": context["capabilities"]["drop"]}
            assert context == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_resources_of_a_pod_are_bounded(objects: list[Object]) -> None:
    for each in pods(objects):
        disk = 0.0
        limits = each.spec["containers"][0]["resources"]["limits"]
        for volume in each.spec["volumes"]:
            if "emptyDir" in volume:
                size = _bytes(volume["emptyDir"]["sizeLimit"])
                in_memory = volume["emptyDir"].get("medium") == "Memory"
                assert size < _bytes(limits["memory"]) or not in_memory  # files in /dev/shm count as memory
                disk += 0 if in_memory else size
        if each.job and (cache := each.env("ADAINF_CACHE_BYTES")):  # the cache sees the node's disk, not the volume's limit
            assert int(cache) < 0.9 * disk
        assert disk <= _bytes(limits["ephemeral-storage"])  # otherwise the pod is evicted before its volume is full
        for container in each.spec["containers"]:
            requests = container["resources"]["requests"]
            assert requests["cpu"]
            assert requests["memory"] == container["resources"]["limits"]["memory"] or each.owner["kind"] != "CronJob"


def test_sigterm_is_handled_from_the_start(objects: list[Object]) -> None:
    # PID 1 receives no SIGTERM before it has a handler, and a lost one costs the full grace period.
    for each in pods(objects):
        for container in each.spec["containers"]:
            assert container["command"][:2] == ["tini", "--"] or container["command"][0] == "weed"  # Go handles it


def test_quantities_are_strings(objects: list[Object]) -> None:
    # The API server stores strings: with a number, every `kubectl apply` of the same file would change the object.
    for each in pods(objects):
        for container in each.spec["containers"]:
            for amounts in container["resources"].values():
                assert {type(amount) for amount in amounts.values()} == {str}


def test_stages_have_no_token(objects: list[Object]) -> None:
    for each in pods(objects):
        controls = each.spec["containers"][0]["name"] == "controller"
        assert each.spec["automountServiceAccountToken"] is controls
        assert each.spec["enableServiceLinks"] is False


def test_no_secret_is_committed(objects: list[Object]) -> None:
    assert "Secret" not in {each["kind"] for each in objects}
    keys = [each.get("data", {}).get("AWS_SECRET_ACCESS_KEY") for each in objects]
    assert set(keys) <= {None, "any"}  # the store of overlay cpu accepts any key
    for each in pods(objects):
        for container in each.spec["containers"]:
            for variable in container.get("env", []):
                assert not re.search("KEY|TOKEN|SECRET|PASSWORD", variable["name"]) or "valueFrom" in variable


def test_selectors_match_pods(objects: list[Object]) -> None:
    labels = [each.template["metadata"]["labels"] for each in pods(objects)]
    for each in objects:
        if each["kind"] == "Service":
            selected = [label for label in labels if each["spec"]["selector"].items() <= label.items()]
            assert selected
            names = {port.get("targetPort", port["port"]) for port in each["spec"]["ports"]}
            for pod in pods(objects):
                if pod.template["metadata"]["labels"] in selected:
                    ports = pod.spec["containers"][0]["ports"]
                    assert names <= {port["name"] for port in ports} | {port["containerPort"] for port in ports}
        if each["kind"] in ("NetworkPolicy", "PodMonitor"):
            selector = each["spec"].get("podSelector") or each["spec"]["selector"]
            assert any(selector["matchLabels"].items() <= label.items() for label in labels)


def test_references_of_pods_resolve(objects: list[Object]) -> None:
    have = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for each in pods(objects):
        if account := each.spec.get("serviceAccountName"):
            assert ("ServiceAccount", account) in have
        if service := each.spec.get("subdomain"):
            assert ("Service", service) in have
            assert each.env("ADAINF_SERVICE") == service
        for volume in each.spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in have
        for container in each.spec["containers"]:
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in have
                elif each.job:
                    assert source["secretRef"]["optional"] is True  # absent with IRSA


def test_names_are_short_enough(objects: list[Object]) -> None:
    for each in pods(objects):
        name = each.owner["metadata"]["name"]
        if each.owner["kind"] == "CronJob":
            assert len(name) <= 52
            arms = RUN_ARMS if name == "adainf-pretrain" else ("",)
            for arm in arms:  # OWNER-STAGE-ARM-UID4-ATTEMPT, whose pods are JOB-INDEX: a DNS label
                job = f"{name}-{arm}-ffff-99" if arm else f"{name}-ffff-99"
                assert len(f"{job}-999") <= 63


def test_images_are_built_here(objects: list[Object]) -> None:
    targets = {image["target"] for image in yaml.safe_load((K8S.parent / "images" / "matrix.yaml").read_text())["images"]}
    for each in pods(objects):
        for container in each.spec["containers"]:
            repository, _, tag = container["image"].rpartition(":")
            assert tag not in ("", "latest")
            assert repository.removeprefix("adainf-") in targets or repository == "chrislusf/seaweedfs"


def test_every_stage_has_a_template() -> None:
    for overlay in OVERLAYS:
        assert {each["metadata"]["name"] for each in rendered(overlay) if each["kind"] == "CronJob"} == {
            f"adainf-{stage}" for stage in STAGES
        }
        for each in rendered(overlay):
            if each["kind"] == "CronJob":
                assert each["spec"]["suspend"] is True
                assert each["spec"]["schedule"] == "0 0 31 2 *"


def test_role_reads_only_the_templates() -> None:
    (role,) = (each for each in rendered() if each["kind"] == "Role")
    rules = {rule["resources"][0]: rule for rule in role["rules"]}
    assert sorted(rules["cronjobs"]["resourceNames"]) == sorted(f"adainf-{stage}" for stage in STAGES)
    assert not {"delete", "deletecollection", "update", "*"} & {verb for rule in role["rules"] for verb in rule["verbs"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_exit_codes_match_the_code(stage: str, overlay: str | None) -> None:
    found = template(stage, overlay)
    assert found.job is not None
    rules = found.job["podFailurePolicy"]["rules"]
    by_action = [(rule["action"], rule["onExitCodes"]["values"]) for rule in rules if "onExitCodes" in rule]
    permanent = [errors.BAD_INPUT, errors.STAGE_FAILED]
    if stage in GANGS:
        assert by_action == [("FailJob", [errors.INTERRUPTED]), ("FailJob", [*permanent, errors.SUPERSEDED])]
        assert found.job["backoffLimit"] == 0
    elif stage in SHARED:
        assert by_action == [("FailJob", permanent), ("Ignore", [errors.INTERRUPTED])]
    else:
        assert by_action == [("FailJob", permanent)]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {stage}
    (disruption,) = (rule for rule in rules if "onPodConditions" in rule)
    assert disruption["action"] == ("FailJob" if stage in GANGS else "Ignore")
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]  # 1.31 to 1.33 require the status


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sizes_agree(overlay: str | None) -> None:
    for stage in STAGES:
        found = template(stage, overlay)
        job = found.job
        assert job is not None
        count = {
            "fit": "ADAINF_NNODES",
            "pretrain": "ADAINF_NNODES",
            **dict.fromkeys(SHARED, "ADAINF_WORKERS"),
        }
        if stage in count:
            assert job["completionMode"] == "Indexed"
            assert str(job["completions"]) == str(job["parallelism"]) == found.env(count[stage])
        else:
            assert "completions" not in job
        gpus = found.spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert found.env("ADAINF_CACHE_BYTES")
        assert (found.env("ADAINF_NPROC") == "auto") is (gpus is not None)  # `auto` counts GPUs, and rejects 0
        if stage in GANGS:
            assert found.template["metadata"]["labels"]["adainf.dev/gang"] == "workers"
            assert found.template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
            assert found.spec["terminationGracePeriodSeconds"] >= 300


@pytest.mark.parametrize("stage", STAGES)
def test_arguments_match_the_command(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = template(stage)
    values = {
        "ADAINF_RECIPE": found.env("ADAINF_RECIPE"),
        "ADAINF_RUN": "s3://bucket/run",
        "ADAINF_ARM": "none",
        "ADAINF_WORKERS": found.env("ADAINF_WORKERS"),
    }
    words = [re.sub(r"\$\((\w+)\)", lambda match: values[match[1]] or "", word) for word in found.spec["containers"][0]["args"]]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    parsed = arguments.build_parser().parse_args(words)
    assert parsed.command == stage
    assert parsed.run == "s3://bucket/run"


@pytest.mark.parametrize("recipe", ["base/recipe.yaml", "overlays/cpu/recipe.yaml"])
def test_tasks_wait_for_what_they_read(recipe: str) -> None:
    """A template waits, directly or indirectly, for the tasks that create the stage's inputs. There is no cycle."""
    arms = load_recipe(K8S / recipe).arms
    assert tuple(arms) == ("none", "none-weak", "vanilla", "adainf")
    read = load_recipe(K8S / recipe)
    plan, positives = read.plan.model_copy(update={"verify": Verify()}), Positives(use=Add(kind="add"))
    with_all = read.model_copy(update={"arms": RUN_ARMS, "plan": plan, "positives": positives})
    before = _after(with_all)
    assert set(before) == {*(set(STAGES) - {"pretrain"}), *(f"pretrain.{arm}" for arm in RUN_ARMS)}
    graph = build_graph(with_all)
    for node in graph.values():
        for artifact in node.inputs:
            assert graph[artifact].task in _ancestors(node.task, before)
    assert _ancestors("report", before) == set(before) - {"report"}


def _after(recipe: Recipe) -> dict[str, set[str]]:
    """Task → the tasks in the annotations of its template."""
    arms = {f"pretrain.{arm}" for arm in recipe.arms}
    tasks: dict[str, set[str]] = {}
    for stage in STAGES:
        for name, text in template(stage).owner["metadata"]["annotations"].items():
            if name.startswith("adainf.dev/after"):
                arm = name.removeprefix("adainf.dev/after").removeprefix(".")
                words = set(text.split())
                tasks[f"{stage}.{arm}" if arm else stage] = words - {"pretrain"} | (arms if "pretrain" in words else set())
    return tasks


def _ancestors(task: str, before: dict[str, set[str]], path: tuple[str, ...] = ()) -> set[str]:
    assert task not in path, f"{task} waits for itself"
    return before[task].union(*(_ancestors(each, before, (*path, task)) for each in before[task]))


def _bytes(quantity: str) -> float:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(quantity[:-2]) * units[quantity[-2:]]


def test_overlay_cpu_fits_a_laptop() -> None:
    def memory(each: Pods) -> float:
        return _bytes(each.spec["containers"][0]["resources"]["requests"]["memory"]) * (each.job or {}).get("completions", 1)

    gangs = [memory(template(stage, "cpu")) for stage in STAGES]
    others = [memory(each) for each in pods(rendered("cpu")) if each.owner["kind"] != "CronJob"]
    assert 2 * max(gangs) + sum(others) < 8 * 2**30  # `none` pretrains while the generator is fitted
