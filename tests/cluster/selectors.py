"""Label and field selectors of lists and watches."""

from __future__ import annotations

import re
from typing import Any

from tests.cluster.store import Object

_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)\s*")


def selects(each: Object, query: dict[str, str]) -> bool:
    """Whether an object matches `labelSelector` and `fieldSelector` of a query."""
    labels = each["metadata"].get("labels", {})
    wanted = re.split(r",(?![^(]*\))", query.get("labelSelector", ""))
    fields = query.get("fieldSelector", "").split(",")
    return all(_label(labels, term) for term in wanted if term) and all(_field(each, term) for term in fields if term)


def _label(labels: dict[str, str], term: str) -> bool:
    found = _SET.fullmatch(term)
    if found:
        return (labels.get(found[1]) in [value.strip() for value in found[3].split(",")]) == (found[2] == "in")
    if "=" not in term:
        return (term.lstrip("!").strip() in labels) != term.startswith("!")
    key, value = re.split(r"!=|==?", term, maxsplit=1)
    return (labels.get(key.strip()) == value.strip()) != ("!=" in term)


def _field(each: Object, term: str) -> bool:
    path, value = re.split(r"!=|==?", term, maxsplit=1)
    found: Any = each
    for part in path.replace("regarding.", "involvedObject.").split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    return (str(found) == value) != ("!=" in term)
