"""Component vap: a table of Jobs that the policy admits and refuses, by an implementation of CEL."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import cel
import pytest
import yaml

from adainf.kubernetes.controller.templates import Owner, RecipeRef, make_job, read_template
from adainf.kubernetes.render import render
from adainf.pipeline.stages import STAGES
from adainf.recipe import Arm
from tests.cluster.defaults import fill
from tests.manifests.objects import Object

SOURCE = RecipeRef("s3://b/r/recipes/0123456789ab.yaml", "f" * 64)
TASKS = [*(stage for stage in STAGES if stage != "pretrain"), *(f"pretrain.{arm}" for arm in get_args(Arm))]


@cache
def objects(name: str = "adainf", overlay: str | None = None, *components: str) -> list[Object]:
    text = render(overlay=overlay, components=("vap", *components), name=name, images=dict(image(overlay)))
    return list(yaml.load_all(text, yaml.CSafeLoader))


def image(overlay: str | None) -> list[tuple[str, str]]:
    return [("train-cpu" if overlay else "train", f"registry:5000/mine/train:2@sha256:{64 * 'a'}")]


def admit(job: Object, found: list[Object], username: str = "") -> str:
    """The message of the first rule that refuses a Job. Empty if it is admitted; an error refuses, by `failurePolicy`."""
    policy = next(each for each in found if each["kind"] == "ValidatingAdmissionPolicy")["spec"]
    controller = next(each for each in found if each["kind"] == "Job")["metadata"]["name"]
    user = {"username": username or f"system:serviceaccount:lab:{controller}-controller"}
    variables: dict[str, Any] = {}
    context = {"object": job, "request": {"userInfo": user}, "variables": variables}
    if not all(cel.evaluate(each["expression"], context) for each in policy["matchConditions"]):
        return ""
    for each in policy["variables"]:
        variables[each["name"]] = cel.evaluate(each["expression"], context)
    for rule in policy["validations"]:
        try:
            admitted = cel.evaluate(rule["expression"], context)
        except Exception as error:
            return f"error in {rule['message']}: {error}"
        if not admitted:
            return str(rule["message"])
    return ""


def job_of(task: str, found: list[Object], owner: str = "") -> Object:
    """The Job that the controller creates, with the API server's defaults."""
    name = owner or next(each for each in found if each["kind"] == "Job")["metadata"]["name"]
    stage = task.partition(".")[0]
    template = next(e for e in found if e["kind"] == "CronJob" and e["metadata"]["labels"]["adainf.dev/stage"] == stage)
    job = make_job(read_template(stage, template), Owner(name, "ab12cd34", "lab"), task, 1, SOURCE, "")
    job = copy.deepcopy(job)
    fill("jobs", job)
    return job


@pytest.mark.parametrize(
    ("name", "overlay", "components"),
    [("adainf", None, ()), ("adainf", "cpu", ()), ("cifar", None, ("kueue", "spot", "irsa")), ("a", None, ("volcano", "rdma"))],
)
def test_jobs_of_the_controller_are_admitted(name: str, overlay: str | None, components: tuple[str, ...]) -> None:
    found = objects(name, overlay, *components)
    for task in TASKS:
        assert admit(job_of(task, found), found) == "", task


def pod(job: Object) -> Any:
    return job["spec"]["template"]["spec"]


def container(job: Object) -> Any:
    return pod(job)["containers"][0]


def variable(name: str, value: str = "x", **more: Any) -> Callable[[Object], None]:
    return lambda job: container(job)["env"].append({"name": name, **({"valueFrom": more} if more else {"value": value})})


def of_pod(**fields: Any) -> Callable[[Object], None]:
    return lambda job: pod(job).update(fields)


def of_container(**fields: Any) -> Callable[[Object], None]:
    return lambda job: container(job).update(fields)


def secure(where: Callable[[Object], Any], **fields: Any) -> Callable[[Object], None]:
    return lambda job: where(job)["securityContext"].update(fields)


def without(where: Callable[[Object], Any], key: str) -> Callable[[Object], None]:
    return lambda job: where(job).pop(key)


HANDLER = {"exec": {"command": ["sh", "-c", "id"]}}
REFUSED: list[tuple[str, Callable[[Object], Any]]] = [
    ("is not a stage", lambda job: job["metadata"]["labels"].update({"adainf.dev/stage": "mine"})),
    ("is not a stage", lambda job: job["metadata"].pop("labels")),
    ("no owner", lambda job: job["metadata"].pop("ownerReferences")),
    ("no owner", lambda job: job["metadata"]["ownerReferences"][0].update(kind="Pod")),
    ("no owner", lambda job: job["metadata"]["ownerReferences"][0].update(name="other")),
    ("another identity", of_pod(serviceAccountName="default")),
    ("another identity", without(pod, "serviceAccountName")),
    ("another identity", of_pod(automountServiceAccountToken=True)),
    ("another identity", without(pod, "automountServiceAccountToken")),
    ("other containers", of_pod(initContainers=[{"name": "i", "image": "i"}])),
    ("other containers", lambda job: pod(job)["containers"].append({"name": "fit", "image": "adainf-generate:0.1.0"})),
    ("other containers", of_container(name="x")),
    ("image", of_container(image="busybox")),
    ("image", of_container(image="evil/adainf-generate:0.1.0")),
    ("image", of_container(image="adainf-generate:0.1.1")),
    ("image", without(container, "image")),
    ("command", of_container(command=["sh"])),
    ("command", lambda job: container(job)["command"].append("-x")),
    ("command", without(container, "command")),
    ("command", of_container(workingDir="/tmp")),
    ("arguments", of_container(args=["ingest", "$(ADAINF_RECIPE)", "--run", "$(ADAINF_RUN)"])),
    ("arguments", lambda job: container(job)["args"].append("--help")),
    ("arguments", of_container(args=["fit", "s3://evil/recipe", "--run", "$(ADAINF_RUN)"])),
    ("arguments", of_container(args=["fit", "$(ADAINF_RECIPE)", "--run", "s3://evil/run"])),
    ("arguments", of_container(args=["fit"])),
    ("arguments", lambda job: container(job)["args"].append("--allow-external")),
    ("arguments", without(container, "args")),
    ("container has other rights", secure(container, privileged=True)),
    ("container has other rights", secure(container, allowPrivilegeEscalation=True)),
    ("container has other rights", secure(container, readOnlyRootFilesystem=False)),
    ("container has other rights", secure(container, capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
    ("container has other rights", secure(container, capabilities={})),
    ("container has other rights", secure(container, runAsUser=0)),
    ("container has other rights", secure(container, runAsNonRoot=False)),
    ("container has other rights", secure(container, procMount="Unmasked")),
    ("container has other rights", secure(container, seccompProfile={"type": "Unconfined"})),
    ("container has other rights", without(container, "securityContext")),
    ("pod has other rights", secure(pod, runAsNonRoot=False)),
    ("pod has other rights", secure(pod, runAsUser=0)),
    ("pod has other rights", secure(pod, seccompProfile={"type": "Unconfined"})),
    ("pod has other rights", secure(pod, sysctls=[{"name": "kernel.shm_rmid_forced", "value": "0"}])),
    ("pod has other rights", of_pod(securityContext={})),
    ("node", of_pod(hostNetwork=True)),
    ("node", of_pod(hostPID=True)),
    ("node", of_pod(hostIPC=True)),
    ("node", of_pod(nodeName="control-plane")),
    ("node", of_pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["s3"]}])),
    ("node", of_pod(dnsConfig={"nameservers": ["1.2.3.4"]})),
    ("node", of_pod(dnsPolicy="Default")),
    ("node", lambda job: container(job)["ports"][0].update(hostPort=22)),
    ("hooks or probes", of_container(lifecycle={"postStart": HANDLER})),
    ("hooks or probes", of_container(lifecycle={"preStop": HANDLER})),
    ("hooks or probes", of_container(livenessProbe=HANDLER)),
    ("hooks or probes", of_container(readinessProbe=HANDLER)),
    ("hooks or probes", of_container(startupProbe=HANDLER)),
    ("volume", lambda job: pod(job)["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    ("volume", lambda job: pod(job)["volumes"].append({"name": "h", "secret": {"secretName": "other"}})),
    ("volume", lambda job: pod(job)["volumes"].append({"name": "h", "configMap": {"name": "other"}})),
    ("volume", lambda job: pod(job)["volumes"].append({"name": "h", "projected": {"sources": []}})),
    ("volume", lambda job: pod(job)["volumes"].append({"name": "h", "csi": {"driver": "d"}})),
    ("volume", lambda job: container(job)["volumeMounts"].append({"name": "tmp", "mountPath": "/usr/lib/python3"})),
    ("volume", of_container(volumeDevices=[{"name": "d", "devicePath": "/dev/sda"}])),
    ("reads an object", lambda job: container(job)["envFrom"].append({"secretRef": {"name": "other"}})),
    ("reads an object", lambda job: container(job)["envFrom"].append({"configMapRef": {"name": "other"}})),
    ("reads an object", lambda job: container(job)["envFrom"][0].update(prefix="LD_")),
    ("variable", variable("PYTHONPATH", "/tmp")),
    ("variable", variable("PYTHONSTARTUP")),
    ("variable", variable("LD_PRELOAD", "/tmp/a.so")),
    ("variable", variable("NCCL_NET_PLUGIN", "/tmp/a.so")),
    ("variable", variable("AWS_ENDPOINT_URL_S3", "http://evil")),
    ("variable", variable("HTTPS_PROXY", "http://evil")),
    ("variable", variable("ADAINF_X")),
    ("variable", variable("ADAINF_ALLOW_EXTERNAL", "1")),
    ("variable", variable("POD_IP", secretKeyRef={"name": "other", "key": "k"})),
    ("variable", variable("POD_IP", configMapKeyRef={"name": "other", "key": "k"})),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change"), REFUSED, ids=[f"{n}-{each[0]}" for n, each in enumerate(REFUSED)])
def test_other_jobs_are_refused(message: str, change: Callable[[Object], Any]) -> None:
    found = objects()
    job = job_of("fit", found)
    change(job)
    assert message in admit(job, found)


def test_each_rule_refuses_a_job() -> None:
    policy = next(each for each in objects() if each["kind"] == "ValidatingAdmissionPolicy")["spec"]
    for rule in policy["validations"]:
        assert any(message in rule["message"] for message, _ in REFUSED), rule["message"]
        assert rule["message"].count(":") == 1, "what is wrong: how to fix it"


def test_the_policy_is_about_the_controller_of_its_run() -> None:
    found, other = objects("cifar", None, "kueue", "spot", "irsa"), objects()
    for user in ("admin", "system:serviceaccount:kube-system:job-controller", "system:serviceaccount:lab:adainf-controller"):
        assert admit({}, found, user) == "", "another policy, or none, is about this user"
    assert "no owner" in admit(job_of("fit", found, owner="adainf"), found)
    assert "another identity" in admit(job_of("fit", other, owner="cifar"), found)


def test_by_kustomize_alone_it_admits_no_image() -> None:
    """`adainf render` writes the images. Would catch a policy that admits any image until somebody completes it."""
    found = copy.deepcopy(objects())
    policy = next(each for each in found if each["kind"] == "ValidatingAdmissionPolicy")["spec"]
    assert cel.evaluate(policy["variables"][0]["expression"]) == sorted(
        {container(job_of(task, found))["image"] for task in TASKS}
    )
    policy["variables"][0]["expression"] = '["IMAGES"]'
    assert "image" in admit(job_of("fit", found), found)
