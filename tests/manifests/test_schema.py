"""Every object is valid against the API schemas, from the first supported version to the newest."""

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
"""Kinds of CRDs."""


def distinct() -> list[Object]:
    """Each distinct object once: most objects are in many manifests."""
    files = [job_file(name) for name in JOB_FILES]
    renderings = [rendered(overlay, (name,)) for overlay in OVERLAYS for name in COMPONENTS if name != "static-secret"]
    found = {json.dumps(each): each for objects in files + renderings for each in objects}
    return [each for each in found.values() if each["kind"] not in OTHERS]


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(version: str) -> None:
    for each in distinct():
        kubernetes_validate.validate(each, version, strict=True)


def test_unknown_fields_are_rejected() -> None:
    job = next(each for each in job_file("ingest.yaml") if each["kind"] == "Job")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "backofLimit": 3}}, VERSIONS[0], strict=True)


def test_layout() -> None:
    assert _tool("yamllint", "--strict", "--config-file", str(K8S / ".yamllint.yaml"), str(K8S), str(JOBS)) == ""


def test_dockerfile() -> None:
    assert _tool("hadolint", str(K8S.parent / "Dockerfile")) == ""


def _tool(name: str, *arguments: str) -> str:
    """The output of a linter."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert path, f"{name} is not installed: run pip install -e '.[test]'"
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
