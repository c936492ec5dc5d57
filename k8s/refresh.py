"""Generates jobs/ from k8s/: ``make render``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adainf.kubernetes.rename import Dumper
from adainf.kubernetes.render import K8S, kustomize, render
from adainf.pipeline.stages import STAGES

JOBS = K8S.parent / "jobs"


def files() -> dict[str, str]:
    """File name → content of each file in jobs/."""
    pipeline = render()
    return {
        "adainf.yaml": _header("base/header.txt") + pipeline,
        "adainf-cpu.yaml": _header("overlays/cpu/header.txt") + render(overlay="cpu"),
        "browse.yaml": _header("browse/header.txt") + kustomize(K8S / "browse"),
        **{f"{stage}.yaml": _single(stage, list(yaml.safe_load_all(pipeline))) for stage in STAGES},
    }


def _header(name: str) -> str:
    return (K8S / name).read_text()


def _single(stage: str, objects: list[dict[str, Any]]) -> str:
    """The Job of one stage, with the objects that its pods need."""
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    template = by_name["CronJob", f"adainf-{stage}"]
    job = template["spec"]["jobTemplate"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"adainf-{stage}", **job["metadata"]},
        "spec": job["spec"],
    }
    pod = job["spec"]["template"]["spec"]
    needed = [("ServiceAccount", "adainf-stage"), ("ConfigMap", "adainf-store"), ("ConfigMap", "adainf-recipe")]
    if "subdomain" in pod:
        needed.append(("Service", pod["subdomain"]))
    if stage == "pretrain":
        pod["containers"][0]["env"].append({"name": "ADAINF_ARM", "value": "adainf"})
    what = (K8S / "base" / f"{stage}.yaml").read_text().splitlines()[0].removeprefix("# ")
    if stage == "pretrain":
        what = "Pretrains the encoders of one arm, ADAINF_ARM: a gang of ADAINF_NNODES pods."
    header = _header("stage-header.txt").replace("STAGE", stage).replace("WHAT", what)
    return header + yaml.dump_all([*(by_name[key] for key in needed), job], Dumper=Dumper, sort_keys=False, width=1000)


def main() -> None:
    JOBS.mkdir(exist_ok=True)
    for name, text in files().items():
        Path(JOBS / name).write_text(text)


if __name__ == "__main__":
    main()
