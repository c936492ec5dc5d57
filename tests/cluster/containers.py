"""A container's environment, command and volumes, resolved as a kubelet does, with local folders as volumes."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from tests.cluster.quantities import amount
from tests.cluster.store import Object, Store

_VARIABLE = re.compile(r"\$(\$)?\(([A-Za-z_][\w.-]*)\)")


class Unready(Exception):
    """A container cannot be created yet. `reason` is that of the pod's status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


def expand(text: str, variables: dict[str, str]) -> str:
    """Expand $(NAME) of known variables. $$(NAME) is an escaped $(NAME)."""
    return _VARIABLE.sub(lambda m: m[0][1:] if m[1] else variables.get(m[2], m[0]), text)


def mounts(store: Store, pod: Object, container: Object, folder: Path) -> dict[str, Path]:
    """Mount path → local folder. Raises `Unready` if a ConfigMap or a Secret is missing."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    placed = {}
    for mount in container.get("volumeMounts", []):
        volume = volumes[mount["name"]]
        where = folder / "volumes" / mount["name"]
        where.mkdir(parents=True, exist_ok=True)
        for source, plural, field in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
            if source in volume:
                data = _data(
                    store, plural, pod, volume[source][field], volume[source].get("optional", False), "ContainerCreating"
                )
                items = {each["key"]: each["path"] for each in volume[source].get("items", [])}
                for key, value in data.items():
                    if not items or key in items:
                        (where / items.get(key, key)).write_text(value)
        placed[mount["mountPath"]] = where / mount.get("subPath", "")
    return placed


def environment(store: Store, pod: Object, container: Object, placed: dict[str, Path]) -> dict[str, str]:
    """All variables of a container. Literals that are paths of mounts become local paths. Raises `Unready`."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for field, plural in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if field in source:
                reference = source[field]
                data = _data(store, plural, pod, reference["name"], reference.get("optional", False))
                variables |= {source.get("prefix", "") + name: value for name, value in data.items()}
    for each in container.get("env", []):
        if "valueFrom" in each:
            value = _from(store, pod, container, each["valueFrom"])
            if value is not None:
                variables[each["name"]] = value
        else:
            variables[each["name"]] = expand(relocated(each.get("value", ""), placed), variables)
    return variables


def command(container: Object, variables: dict[str, str], placed: dict[str, Path]) -> list[str]:
    return [expand(relocated(word, placed), variables) for word in [*container.get("command", []), *container.get("args", [])]]


def relocated(text: str, placed: dict[str, Path]) -> str:
    """The local path for a path at or below a mount."""
    for mount in sorted(placed, key=len, reverse=True):
        if text == mount or text.startswith(mount.rstrip("/") + "/"):
            return str(placed[mount]) + text[len(mount.rstrip("/")) :]
    return text


def _data(
    store: Store, plural: str, pod: Object, name: str, optional: bool, reason: str = "CreateContainerConfigError"
) -> dict[str, str]:
    found = store.get(plural, pod["metadata"]["namespace"], name)
    if found is None:
        if optional:
            return {}
        raise Unready(reason, f'{plural.removesuffix("s")} "{name}" not found')
    data = (
        {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}
        if plural == "secrets"
        else found.get("data", {})
    )
    return {**data, **found.get("stringData", {})}


def _from(store: Store, pod: Object, container: Object, source: dict[str, Any]) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        reference = source["resourceFieldRef"]
        group, _, name = reference["resource"].partition(".")
        return str(
            int(amount(container["resources"].get(group, {}).get(name, "0")) / amount(reference.get("divisor", "1") or "1"))
        )
    field, plural = ("secretKeyRef", "secrets") if "secretKeyRef" in source else ("configMapKeyRef", "configmaps")
    reference = source[field]
    optional = reference.get("optional", False)
    data = _data(store, plural, pod, reference["name"], optional)
    if reference["key"] not in data and not optional:
        where = f"{pod['metadata']['namespace']}/{reference['name']}"
        raise Unready(
            "CreateContainerConfigError", f"couldn't find key {reference['key']} in {plural.removesuffix('s').title()} {where}"
        )
    return data.get(reference["key"])


def _field(pod: Object, path: str) -> str:
    """The value of a field path: `metadata.labels['KEY']`, or a plain path."""
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "")
    return str(value)
