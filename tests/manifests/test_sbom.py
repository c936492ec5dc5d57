"""The bill of materials that `make images` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from images.sbom import bill

SCRIPT = Path(__file__).parents[2] / "images" / "sbom.py"
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u9
Description: a
 b: c

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 1:12.2.0-14
"""


@pytest.fixture(scope="module")
def printed() -> str:
    """As images/build.py runs it, twice."""
    command = [sys.executable, "-c", SCRIPT.read_text(), "adainf-train:0.1.0"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second
    return first


def test_every_distribution_is_listed_once_with_its_version(printed: str) -> None:
    found = json.loads(printed)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == "adainf-train:0.1.0"
    purls = [component["purl"] for component in found["components"]]
    assert len(set(purls)) == len(purls)
    for name in ("numpy", "pyyaml", "pydantic"):
        assert f"pkg:pypi/{name}@{version(name)}" in purls
    assert sum(purl.startswith("pkg:pypi/") for purl in purls) == len({each.name.lower() for each in distributions()})


def test_installed_debian_packages_are_listed(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    purls = [each["purl"] for each in bill("x", tmp_path / "status")["components"] if "deb" in each["purl"][:8]]
    assert purls == ["pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64", "pkg:deb/debian/libstdc++6@1%3A12.2.0-14?arch=amd64"]
    assert not [each for each in bill("x", tmp_path / "none")["components"] if "pkg:deb" in each["purl"]]
