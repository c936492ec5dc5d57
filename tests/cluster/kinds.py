"""The kinds of the cluster, and API discovery."""

from __future__ import annotations

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One resource type."""

    group: str
    name: str
    plural: str
    short: str = ""
    namespaced: bool = True

    @property
    def resource(self) -> str:
        """The name in messages of the API server: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"


KINDS = (
    Kind("", "Namespace", "namespaces", "ns", namespaced=False),
    Kind("", "Node", "nodes", "no", namespaced=False),
    Kind("", "Pod", "pods", "po"),
    Kind("", "Service", "services", "svc"),
    Kind("", "ConfigMap", "configmaps", "cm"),
    Kind("", "Secret", "secrets"),
    Kind("", "ServiceAccount", "serviceaccounts", "sa"),
    Kind("", "ResourceQuota", "resourcequotas", "quota"),
    Kind("", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc"),
    Kind("", "Event", "events", "ev"),
    Kind("events.k8s.io", "Event", "events", "ev"),
    Kind("apps", "Deployment", "deployments", "deploy"),
    Kind("apps", "StatefulSet", "statefulsets", "sts"),
    Kind("batch", "Job", "jobs"),
    Kind("batch", "CronJob", "cronjobs", "cj"),
    Kind("networking.k8s.io", "NetworkPolicy", "networkpolicies", "netpol"),
    Kind("policy", "PodDisruptionBudget", "poddisruptionbudgets", "pdb"),
    Kind("rbac.authorization.k8s.io", "Role", "roles"),
    Kind("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
)
_BY_PLURAL = {(kind.group, kind.plural): kind for kind in KINDS}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def kind_of(group: str, plural: str) -> Kind | None:
    return _BY_PLURAL.get((group, plural))


def discovery(path: str) -> dict[str, Any] | None:
    """The response for a discovery path; None for all other paths."""
    groups = sorted({kind.group for kind in KINDS if kind.group})
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64"}
        case ["openapi", "v3"]:
            paths = ["api/v1", *(f"apis/{each}/v1" for each in groups)]
            return {"paths": {each: {"serverRelativeURL": f"/openapi/v3/{each}"} for each in paths}}
        case ["openapi", "v3", *rest]:
            return _openapi(rest[1] if rest[0] == "apis" else "")
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(each) for each in groups]}
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis", group, "v1"] if group in groups:
            return _resources(group, f"{group}/v1")
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
    return None


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resources(group: str, group_version: str) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for kind in (kind for kind in KINDS if kind.group == group):
        entry = {"name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name}
        resources.append({**entry, "verbs": _VERBS, "shortNames": [kind.short] if kind.short else []})
        resources.append({**entry, "name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _openapi(group: str) -> dict[str, Any]:
    """Just enough for kubectl to leave the validation of fields to the server, as with a real cluster."""
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
    paths = {
        f"/{kind.plural}": {
            "patch": {
                "parameters": parameters,
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": "v1", "kind": kind.name},
            }
        }
        for kind in KINDS
        if kind.group == group
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"}, "paths": paths}
