"""``adainf clean``: deletes from the cluster what a run leaves there. The run in its store stays."""

from __future__ import annotations

from collections.abc import Iterator

from adainf.errors import BadInput
from adainf.kubernetes.controller.api import JOBS, PODS, Api, ApiStatusError, connect
from adainf.kubernetes.controller.templates import Object

_KINDS = (
    (JOBS, "jobs"),
    (JOBS, "cronjobs"),
    (PODS, "pods"),
    ("apis/apps/v1", "deployments"),
    ("apis/policy/v1", "poddisruptionbudgets"),
    (PODS, "services"),
    (PODS, "configmaps"),
    ("apis/networking.k8s.io/v1", "networkpolicies"),
    ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("apis/rbac.authorization.k8s.io/v1", "roles"),
    (PODS, "serviceaccounts"),
)
"""API group and kind, in the order of deletion."""
_COMPONENT = "app.kubernetes.io/component"


def clean(namespace: str | None = None, name: str = "adainf", store: bool = False, dry_run: bool = False) -> None:
    """Delete the objects of the run `name`, and print them. `store`: also a store in the cluster, which holds the run.

    Raises `BadInput` before the first deletion if a Job of the run has not ended, or a right is missing.
    """
    api = connect(namespace)
    found = list(_objects(api, name))
    for _, kind, thing in found:
        if kind == "jobs" and not _has_ended(thing):
            job = thing["metadata"]["name"]
            raise BadInput(
                f"Job/{job} in namespace {api.namespace} has not ended: wait for it by `adainf wait --name {name}`, or stop it "
                f"by `kubectl delete job/{job}`"
            )
    if not found:
        print(f"namespace {api.namespace} contains no objects of run {name}")
    for group, kind, thing in found:
        what = f"{kind}/{thing['metadata']['name']}"
        if thing["metadata"]["labels"].get(_COMPONENT) == "store" and not store:
            print(f"{what} kept, as it belongs to the store that holds the run: add --store to delete it")
        elif dry_run:
            print(f"{what} would be deleted")
        else:
            _delete(api, group, kind, thing)
            print(f"{what} deleted")


def _objects(api: Api, name: str) -> Iterator[tuple[str, str, Object]]:
    """Group, kind and object. Pods only if nothing owns them, as after `kubectl delete --cascade=orphan`."""
    selector = f"app.kubernetes.io/name=adainf,app.kubernetes.io/instance={name}"
    for group, kind in _KINDS:
        try:
            items = api.list(group, kind, labelSelector=selector)["items"]
        except ApiStatusError as error:
            raise _refused(api, "list", kind, error) from None
        yield from ((group, kind, item) for item in items if kind != "pods" or not item["metadata"].get("ownerReferences"))


def _has_ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _delete(api: Api, group: str, kind: str, thing: Object) -> None:
    try:
        api.delete(group, kind, thing)
    except ApiStatusError as error:
        if error.status not in (404, 409):  # deleted by somebody else, and perhaps created again
            raise _refused(api, "delete", kind, error) from None


def _refused(api: Api, verb: str, kind: str, error: ApiStatusError) -> BadInput:
    return BadInput(
        f"the API server rejects the request ({error}): ask for the right to {verb} {kind} in namespace {api.namespace}"
    )
