"""The API's own schemas, from the first version that we promise to the newest that there is, take every object."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig

import kubernetes_validate
import pytest

from adainf.kubernetes.render import K8S
from tests.manifests.objects import COMPONENTS, JOB_FILES, JOBS, OVERLAYS, Object, job_file, rendered

VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
OTHERS = {"PodMonitor"}
"""Kinds that are not Kubernetes' own."""


def distinct() -> list[Object]:
    """Every object once: most are the same in many files and renderings."""
    files = [job_file(name) for name in JOB_FILES]
    renderings = [rendered(overlay, (name,)) for overlay in OVERLAYS for name in COMPONENTS if name != "static-secret"]
    found = {json.dumps(each): each for objects in files + renderings for each in objects}
    return [each for each in found.values() if each["kind"] not in OTHERS]


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(version: str) -> None:
    for each in distinct():
        kubernetes_validate.validate(each, version, strict=True)


def test_strict_means_strict() -> None:
    job = next(each for each in job_file("ingest.yaml") if each["kind"] == "Job")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "backofLimit": 3}}, VERSIONS[0], strict=True)


def test_layout() -> None:
    assert _tool("yamllint", "--strict", "--config-file", str(K8S / ".yamllint.yaml"), str(K8S), str(JOBS)) == ""


def test_dockerfile() -> None:
    assert _tool("hadolint", str(K8S.parent / "Dockerfile")) == ""


def _tool(name: str, *arguments: str) -> str:
    """What a linter complains of."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert path, f"{name} is missing: pip install -e '.[test]' brings it"
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
