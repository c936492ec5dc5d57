"""JSON merge patches (RFC 7396) and strategic merge patches, which also implement server-side apply.

There is no field ownership, so server-side apply never conflicts.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

# patchMergeKey of the lists in k8s.io/api that are merged by key. Other lists are replaced.
_KEYS = {
    "containers": ("name",), "initContainers": ("name",), "env": ("name",), "volumes": ("name",),
    "volumeMounts": ("mountPath",), "ports": ("containerPort", "port"), "ownerReferences": ("uid",), "conditions": ("type",),
    "imagePullSecrets": ("name",), "topologySpreadConstraints": ("topologyKey",), "secrets": ("name",),
}  # fmt: skip


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def strategic(target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: deepcopy(value) for name, value in patch.items() if name != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for name in set(merged) - set(patch.get("$retainKeys", merged)):
        del merged[name]
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [each for each in merged.get(field, []) if each not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            merged.pop(name, None)
        elif isinstance(value, list):
            merged[name] = _list(name, merged.get(name) or [], value)
        else:
            merged[name] = strategic(merged.get(name), value)
    return merged


def _list(field: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if field == "finalizers":
        return old + [each for each in patch if each not in old]
    elements = [each for each in patch if isinstance(each, dict)]
    key = next((key for key in _KEYS.get(field, ()) if elements and all(key in each for each in elements)), None)
    if key is None:
        return deepcopy(patch)
    merged = {each.get(key): each for each in old}
    for each in elements:
        if each.get("$patch") == "delete":
            merged.pop(each[key], None)
        else:
            merged[each[key]] = strategic(merged.get(each[key]), each)
    return list(merged.values())
