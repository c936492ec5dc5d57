"""The API server's defaults, as far as the tests depend on them."""

from __future__ import annotations

from typing import Any

JOB_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid", "batch.kubernetes.io/job-name", "job-name")
_TOLERATION_S = 300


def fill(plural: str, each: dict[str, Any]) -> None:
    """In place."""
    spec = each.setdefault("spec", {}) if plural in ("jobs", "cronjobs", "pods") else each.get("spec", {})
    if plural == "jobs":
        _job(spec)
        _labels(each)
    elif plural == "cronjobs":
        for name, value in {"concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}.items():
            spec.setdefault(name, value)
        _pod(spec["jobTemplate"]["spec"]["template"]["spec"])
    elif plural == "pods":
        _pod(spec)
        for taint in ("not-ready", "unreachable"):
            _tolerate(spec.setdefault("tolerations", []), f"node.kubernetes.io/{taint}")
    elif plural in ("deployments", "statefulsets"):
        _pod(spec["template"]["spec"])
    elif plural == "services":
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", []):
            port.setdefault("targetPort", port["port"])
    elif plural == "roles":
        each.setdefault("rules", [])


def _job(spec: dict[str, Any]) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    per_index = "backoffLimitPerIndex" in spec
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    defaults = {
        "parallelism": 1, "backoffLimit": 2**31 - 1 if per_index else 6, "completionMode": "NonIndexed", "suspend": False,
        "podReplacementPolicy": policy, "manualSelector": False,
    }  # fmt: skip
    for name, value in defaults.items():
        spec.setdefault(name, value)
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for condition in rule.get("onPodConditions", []):
            condition.setdefault("status", "True")
    _pod(spec["template"]["spec"])


def _labels(job: dict[str, Any]) -> None:
    """The selector, and the labels of pods that it selects."""
    uid, name = job["metadata"].get("uid", ""), job["metadata"].get("name", "")
    labels = job["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= dict(zip(JOB_LABELS, (uid, uid, name, name), strict=True))
    job["spec"].setdefault("selector", {"matchLabels": {JOB_LABELS[0]: uid}})


def _pod(spec: dict[str, Any]) -> None:
    defaults = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst"}
    defaults |= {"serviceAccountName": "default", "schedulerName": "default-scheduler", "securityContext": {}}
    for name, value in defaults.items():
        spec.setdefault(name, value)
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for amounts in container.setdefault("resources", {}).values():
            amounts |= {name: str(value) for name, value in amounts.items()}  # quantities are strings
    for volume in spec.get("volumes", []):
        if "sizeLimit" in (volume.get("emptyDir") or {}):
            volume["emptyDir"]["sizeLimit"] = str(volume["emptyDir"]["sizeLimit"])


def _tolerate(tolerations: list[dict[str, Any]], taint: str) -> None:
    if not any(each.get("key") in (taint, None) and each.get("effect") in ("NoExecute", None) for each in tolerations):
        tolerations.append({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_S})
