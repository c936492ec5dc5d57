"""Resource quantities: "500m", "64Gi", "8"."""

from __future__ import annotations

from typing import Any

_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str | int | float) -> float:
    text = str(quantity)
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS.get(unit, 1)


def requested(pod: dict[str, Any]) -> dict[str, float]:
    """The requests of a pod, including "pods". A limit without a request is the request, too."""
    total = {"pods": 1.0}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for name, value in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[name] = total.get(name, 0) + amount(value)
    return total
