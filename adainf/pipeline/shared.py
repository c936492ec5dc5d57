"""Files that AdaInf provides beside its code: recipes, and manifests for Kubernetes.

In a source tree they are beside the package, in a wheel in its folder ``share/`` (`setup.py`).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shared(name: str) -> Path:
    """The file or folder `name`, such as ``recipes/demo.yaml`` or ``k8s``; it may not exist."""
    installed = _PACKAGE / "share" / name
    return installed if installed.exists() else _PACKAGE.parent / name


def provided_recipes() -> list[str]:
    """The names of the recipes that AdaInf provides."""
    return sorted(path.stem for path in shared("recipes").glob("*.yaml"))
