"""Admission: validation of Jobs, immutable fields, quotas, ServiceAccounts."""

from __future__ import annotations

from typing import Any

from tests.cluster.kinds import Kind
from tests.cluster.quantities import amount, requested
from tests.cluster.statuses import Refusal
from tests.cluster.store import Object, Store

_IMMUTABLE = (
    "selector",
    "template",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "successPolicy",
    "managedBy",
)


def admit(store: Store, kind: Kind, new: Object, old: Object | None) -> None:
    """Raises `Refusal` if the API server rejects `new`."""
    if kind.plural == "jobs":
        problem = _invalid(new["spec"]) or (old and _changed(new["spec"], old["spec"]))
        if problem:
            raise Refusal(422, f'Job.batch "{new["metadata"]["name"]}" is invalid: {problem}')
    if old is None and kind.plural == "pods":
        account = new["spec"]["serviceAccountName"]
        namespace = new["metadata"]["namespace"]
        if account != "default" and store.get("serviceaccounts", namespace, account) is None:
            what = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise Refusal(403, f'pods "{_name(new)}" is forbidden: {what}')
    if old is None and kind.namespaced:
        _quotas(store, kind, new)


def _invalid(spec: dict[str, Any]) -> str:
    template = spec["template"]["spec"]
    indexed = spec["completionMode"] == "Indexed"
    if template["restartPolicy"] not in ("Never", "OnFailure"):
        return 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    if "podFailurePolicy" in spec and template["restartPolicy"] != "Never":
        message = 'only "Never" is supported when podFailurePolicy is specified'
        return f'spec.template.spec.restartPolicy: Invalid value: "{template["restartPolicy"]}": {message}'
    if "podFailurePolicy" in spec and spec["podReplacementPolicy"] != "Failed":
        return f'spec.podReplacementPolicy: Unsupported value: "{spec["podReplacementPolicy"]}": supported values: "Failed"'
    if indexed and spec.get("completions") is None:
        return "spec.completions: Required value: when completion mode is Indexed"
    for field in ("backoffLimitPerIndex", "successPolicy"):
        if field in spec and not indexed:
            return f"spec.{field}: Invalid value: requires indexed completion mode"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        return "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            return "spec.podFailurePolicy.rules.action: Unsupported value: FailIndex"
        values = rule.get("onExitCodes", {}).get("values", [])
        if values != sorted(set(values)):
            return f"spec.podFailurePolicy.rules.onExitCodes.values: Invalid value: {values}: must be ordered"
    return ""


def _changed(new: dict[str, Any], old: dict[str, Any]) -> str:
    for field in _IMMUTABLE:
        if new.get(field) != old.get(field):
            return f"spec.{field}: Invalid value: …: field is immutable"
    if new.get("completions") != old.get("completions"):
        elastic = new["completionMode"] == "Indexed" and new["parallelism"] == new.get("completions")
        if not elastic:
            return f"spec.completions: Invalid value: {new.get('completions')}: field is immutable"
    return ""


def _quotas(store: Store, kind: Kind, new: Object) -> None:
    namespace = new["metadata"]["namespace"]
    wanted = _charge(kind.plural, new) | {f"count/{kind.resource}": 1}
    for quota in store.list("resourcequotas", namespace):
        hard = quota["spec"].get("hard", {})
        used = dict.fromkeys(hard, 0.0)
        for each in store.list(kind.plural, namespace):
            for name, value in (_charge(kind.plural, each) | {f"count/{kind.resource}": 1}).items():
                used[name] = used.get(name, 0) + value
        over = [name for name in hard if name in wanted and used[name] + wanted[name] > amount(hard[name])]
        if over:
            asked = ",".join(f"{name}={wanted[name]:g}" for name in over)
            have = ",".join(f"{name}={used[name]:g}" for name in over)
            most = ",".join(f"{name}={hard[name]}" for name in over)
            message = f"exceeded quota: {quota['metadata']['name']}, requested: {asked}, used: {have}, limited: {most}"
            raise Refusal(403, f'{kind.resource} "{_name(new)}" is forbidden: {message}')


def _charge(plural: str, each: Object) -> dict[str, float]:
    """Quota usage of a pod that has not ended. Other kinds only count."""
    if plural != "pods" or each.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    asked = requested(each)
    return {"pods": asked.pop("pods")} | {f"requests.{name}": value for name, value in asked.items()}


def _name(each: Object) -> str:
    return each["metadata"].get("name") or each["metadata"].get("generateName", "")
