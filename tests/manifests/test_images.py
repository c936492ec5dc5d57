"""images/: what each image's stages import is in its locks, and the images fit what k8s/ runs in them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import adainf
from tests.manifests.objects import pods, rendered

ROOT = Path(adainf.__file__).parent.parent
IMAGES = {image["target"]: image for image in yaml.safe_load((ROOT / "images" / "matrix.yaml").read_text())["images"]}
ENTRIES = {"controller": "adainf.kubernetes.controller.__main__", "browse": "adainf.browse.commands"}
"""What is no stage."""
ABSENT = {
    "kornia_rs": IMAGES.keys() - {"controller"},  # decodes faster, where it is installed
    "torch_fidelity": {"train", "train-cpu"},  # for those who have its weights; its absence is told with the mend
    "diffusers": {"train-cpu"},  # likewise: `unet: {kind: diffusers}` is no work for CPUs
    "sklearn": {"generate", "browse"},  # its digits are ingest's to read
    "torchvision": {"browse"},  # likewise its CIFAR
}
"""Import → the images that lack it although code of their stages has it, none of which they need."""


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "images" / lock).read_text(), re.MULTILINE))


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> Iterator[str]:
    """Of a file, those within functions too; of `from a import b` both a and a.b, as b may be a module."""
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def others(*modules: str) -> set[str]:
    """The packages, other than ours and Python's, that modules of ours import, or those that they import."""
    found, seen, ahead = set[str](), set[str](), list(modules)
    while ahead:
        module = ahead.pop()
        if module in seen or not file_of(module).exists():
            continue
        seen.add(module)
        ahead += [name for name in [module.rpartition(".")[0], *imports(module)] if name.split(".")[0] == "adainf"]
        found |= {name.split(".")[0] for name in imports(module)}
    return found - sys.stdlib_module_names - {"adainf"}


def distributions(package: str) -> set[str]:
    """Those that provide an import, by their names in locks."""
    return {name.lower().replace("_", "-") for name in packages_distributions().get(package, [package])}


@pytest.mark.parametrize("target", IMAGES)
def test_what_the_stages_import_is_in_the_locks(target: str) -> None:
    """Else a stage that works wherever everything is installed ends at an import, in a pod alone."""
    image = IMAGES[target]
    locked = {name for lock in image["locks"] for name in pins(lock)}
    entries = [ENTRIES.get(what, f"adainf.stages.{what}") for what in image["runs"]]
    assert all(file_of(entry).exists() for entry in entries)
    missing = {name for name in others(*entries) if not locked & distributions(name)}
    assert missing == {name for name, targets in ABSENT.items() if target in targets}


@pytest.mark.parametrize("overlay", [None, "cpu"])
def test_each_stage_runs_in_an_image_for_it(overlay: str | None) -> None:
    """A stage moved to another image lacks what only its own has."""
    found = 0
    for each in pods(rendered(overlay)):
        container = each.spec["containers"][0]
        if container["command"][-2:] == ["-m", "adainf.kubernetes.launcher"]:
            target = container["image"].removeprefix("adainf-").partition(":")[0]
            assert container["args"][0] in IMAGES[target]["runs"]
            found += 1
    assert found == len({stage for image in IMAGES.values() for stage in image["runs"]} - ENTRIES.keys())


def test_images_with_torch_hold_one_version_of_everything() -> None:
    """Else the layer above torch's installs another torch: gigabytes more, and a node that has one image pulls them again."""
    locks = ["torch/requirements.lock", "train-cpu/torch.txt", "train-cpu/requirements.lock", "generate/requirements.lock"]
    reference = pins("train/requirements.lock")
    for lock in locks:
        found = pins(lock)
        shared = found.keys() & reference.keys()
        assert shared
        assert {name: found[name] for name in shared} == {name: reference[name] for name in shared}, lock
