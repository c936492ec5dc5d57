"""The name of a run: renames the rendered manifests, so that several runs fit into one namespace.

The manifests have the name ``adainf``. Their objects are ``adainf``, the controller's Job, and ``adainf-SUFFIX``. All have the
label ``app.kubernetes.io/instance``, which selectors use. kustomize's namePrefix does not rename the Service's name in
`subdomain`, the Role's resourceNames, and the names that the controller derives from that of its Job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from adainf.errors import BadInput

DEFAULT = "adainf"
MAX_NAME = 31
"""Pods are named NAME-pretrain-ARM-UID4-ATTEMPT-INDEX, with at most 63 characters."""

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_OURS = re.compile(rf"{DEFAULT}(?=-|$)")
_REFERENCES = {"name", "secretName", "serviceAccountName", "subdomain", "policyName"}
"""Fields whose value is the name of an object. Names of containers, volumes, ports and variables do not match `_OURS`."""
_INSTANCE = "app.kubernetes.io/instance"
_SERVICE = "ADAINF_SERVICE"
_STORE = "adainf-store"
_ADDRESS = re.compile(rf"(?<=://){DEFAULT}(?=-[a-z]+:)")
_RUN = re.compile(rf"(?<=/){DEFAULT}$")
_IN_TEXT = re.compile(rf"\b{DEFAULT}(?=-(?:controller|stage|recipe|store|s3)\b)")


_AMBIGUOUS = re.compile(r"[yYnN]|[-+]?\.?[0-9][0-9a-fA-FxXoO_.+-]*")


def check_name(name: str) -> None:
    """Raises `BadInput` if objects of this name would be invalid."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise BadInput(
            f"invalid --name {name!r}: use at most {MAX_NAME} lower-case letters, digits and hyphens; the first is a letter, "
            "the last is not a hyphen"
        )


def rename(objects: Iterable[dict[str, Any]], name: str) -> str:
    """The objects as YAML, with the run's name in place of the default. References within the set follow."""
    renamed = [_object(each, name) for each in objects]
    return yaml.dump_all(renamed, Dumper=Dumper, sort_keys=False, width=1000)


def _object(thing: dict[str, Any], name: str) -> Any:
    if (thing["kind"], thing["metadata"]["name"]) == ("ConfigMap", _STORE):
        # The address of a store in the cluster, and the default of the run's URI.
        thing = {
            **thing,
            "data": {key: _RUN.sub(name, _ADDRESS.sub(name, text)) for key, text in thing.get("data", {}).items()},
        }
    return _part(thing, name)


def _part(thing: Any, name: str) -> Any:
    if isinstance(thing, list):
        return [_part(each, name) for each in thing]
    if not isinstance(thing, dict):
        return thing
    found = {key: _field(key, value, name) for key, value in thing.items()}
    if thing.get("name") == _SERVICE:
        found["value"] = _renamed(thing["value"], name)
    return found


def _field(key: str, value: Any, name: str) -> Any:
    if key == _INSTANCE and value == DEFAULT:
        return name
    if key in _REFERENCES and isinstance(value, str):
        return _renamed(value, name)
    if key == "resourceNames":
        return [_renamed(each, name) for each in value]
    if key in ("expression", "message") and isinstance(value, str):  # of component vap
        return _IN_TEXT.sub(name, value)
    return _part(value, name)


def _renamed(text: str, name: str) -> str:
    match = _OURS.match(text)
    return name + text[match.end() :] if match else text


class Dumper(yaml.SafeDumper):
    """Writes multi-line strings in block style, like kustomize, and quotes what some parser reads as a number or a bool."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if _AMBIGUOUS.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)
