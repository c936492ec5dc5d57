"""`podFailurePolicy`: the rule that matches a failed pod. After pod_failure_policy.go of Kubernetes."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.cluster.store import Object


class Match(NamedTuple):
    """The first rule that matches."""

    action: str
    message: str


def match(policy: dict[str, Any], pod: Object) -> Match | None:
    for index, rule in enumerate(policy.get("rules", [])):
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        message = f"matching {rule['action']} rule at index {index}"
        if "onExitCodes" in rule:
            for container, code in _exits(pod):
                if _matches(rule["onExitCodes"], container, code):
                    return Match(
                        rule["action"], f"Container {container} for pod {where} failed with exit code {code} {message}"
                    )
        for pattern in rule.get("onPodConditions", []):
            for condition in pod["status"].get("conditions", []):
                if (condition["type"], condition["status"]) == (pattern["type"], pattern["status"]):
                    return Match(rule["action"], f"Pod {where} has condition {pattern['type']} {message}")
    return None


def _exits(pod: Object) -> list[tuple[str, int]]:
    """Name and exit code of each failed container, init containers included."""
    statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
    ended = [(each["name"], each["state"]["terminated"]["exitCode"]) for each in statuses if "terminated" in each["state"]]
    return [(name, code) for name, code in ended if code != 0]


def _matches(rule: dict[str, Any], container: str, code: int) -> bool:
    if rule.get("containerName", container) != container:
        return False
    return (code in rule["values"]) == (rule["operator"] == "In")
