"""Prints a bill of materials (CycloneDX 1.6, JSON) of the environment that runs it: Python distributions and Debian packages.

`make images` runs it in every image: ``python -c "$(cat images/sbom.py)" NAME``. It needs the standard library only, and prints
the same bytes for the same contents: no times, no serial numbers.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

STATUS = Path("/var/lib/dpkg/status")


def bill(name: str, status: Path = STATUS) -> dict[str, Any]:
    """The bill of materials of an image."""
    components = [*map(_of_python, distributions()), *map(_of_debian, _paragraphs(status))]
    unique = {component["bom-ref"]: component for component in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name}},
        "components": [unique[reference] for reference in sorted(unique)],
    }


def _component(kind: str, name: str, version: str, qualifiers: str = "") -> dict[str, Any]:
    reference = f"pkg:{kind}/{name}@{quote(version, safe='')}{qualifiers}"
    return {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}


def _of_python(distribution: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    component = _component("pypi", name, distribution.version)
    if "License-Expression" in distribution.metadata:
        component["licenses"] = [{"expression": distribution.metadata["License-Expression"]}]
    return component


def _paragraphs(status: Path) -> list[dict[str, str]]:
    """The installed packages of a dpkg status file; none where there is no such file."""
    text = status.read_text(encoding="utf-8", errors="replace") if status.exists() else ""
    found = [dict(re.findall(r"^(\w+): (.*)$", paragraph, re.MULTILINE)) for paragraph in text.split("\n\n")]
    return [each for each in found if each.get("Status", "").endswith(" installed")]


def _of_debian(package: dict[str, str]) -> dict[str, Any]:
    architecture = f"?arch={package['Architecture']}"
    return _component("deb/debian", quote(package["Package"], safe="+"), package["Version"], architecture)


if __name__ == "__main__":
    json.dump(bill(sys.argv[1]), sys.stdout, indent=2)
    print()
