"""The objects of the manifests, for the tests. Each manifest is rendered once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from adainf.kubernetes.render import K8S, names, render

Object = dict[str, Any]
JOBS = K8S.parent / "jobs"
OVERLAYS = [None, *names(K8S / "overlays")]
COMPONENTS = names(K8S / "components")
PAIRS = [("kueue", "spot"), ("kueue", "irsa"), ("volcano", "rdma"), ("networkpolicy", "podmonitor"), ("irsa", "vap")]


class Pods(NamedTuple):
    """A pod template, and the object that creates the pods."""

    owner: Object
    template: Object
    job: Object | None
    """The Job's spec, if a Job creates the pods."""

    @property
    def spec(self) -> Object:
        return self.template["spec"]

    def env(self, name: str) -> str | None:
        return next((each.get("value") for each in self.spec["containers"][0]["env"] if each["name"] == name), None)


@cache
def rendered(overlay: str | None = None, components: tuple[str, ...] = (), root: Path = K8S) -> list[Object]:
    return list(yaml.load_all(render(root, overlay, components), yaml.CSafeLoader))


@cache
def job_file(name: str) -> list[Object]:
    return list(yaml.load_all((JOBS / name).read_text(), yaml.CSafeLoader))


JOB_FILES = sorted(path.name for path in JOBS.glob("*.yaml"))
RENDERINGS = {
    f"{overlay or 'base'}+{component}": (overlay, component)
    for overlay in OVERLAYS
    for component in COMPONENTS
    if component != "static-secret"  # its file is created by the user
}
"""Name → overlay and component. Only names: `objects_of` renders."""


def objects_of(manifest: str) -> list[Object]:
    """The objects of one of `JOB_FILES` or `RENDERINGS`."""
    if manifest in RENDERINGS:
        overlay, component = RENDERINGS[manifest]
        return rendered(overlay, (component,))
    return job_file(manifest)


def pods(objects: list[Object]) -> Iterator[Pods]:
    for each in objects:
        match each["kind"]:
            case "CronJob":
                job = each["spec"]["jobTemplate"]["spec"]
                yield Pods(each, job["template"], job)
            case "Job":
                yield Pods(each, each["spec"]["template"], each["spec"])
            case "Deployment":
                yield Pods(each, each["spec"]["template"], None)


def template(stage: str, overlay: str | None = None) -> Pods:
    return next(each for each in pods(rendered(overlay)) if each.owner["metadata"]["name"] == f"adainf-{stage}")
