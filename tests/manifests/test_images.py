"""images/: each image's locks contain what its stages import, and k8s/ uses the right image for each stage."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import adainf
from tests.manifests.objects import pods, rendered

ROOT = Path(adainf.__file__).parent.parent
IMAGES = {image["target"]: image for image in yaml.safe_load((ROOT / "images" / "matrix.yaml").read_text())["images"]}
ENTRIES = {"controller": "adainf.kubernetes.controller.__main__", "browse": "adainf.browse.commands"}
"""Entry points other than stages."""
ABSENT = {
    "kornia_rs": {"generate", "browse"},  # optional: decodes faster
    "simplejpeg": {"generate", "browse"},  # likewise
    "torch_fidelity": {"train", "train-cpu"},  # optional: needs weights of its own; its absence is reported with the fix
    "diffusers": {"train-cpu"},  # likewise: `unet: {kind: diffusers}` is too slow on CPUs
    "sklearn": {"generate", "browse"},  # only ingest reads its digits
    "timm": {"generate"},  # only positives of kind neighbour with a ViT; its absence is reported with the fix
    "torchvision": {"browse"},  # only ingest reads its CIFAR-10
}
"""Import → the images without it, although their stages import it. All are optional there."""


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "images" / lock).read_text(), re.MULTILINE))


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def implementations() -> list[str]:
    """The modules that recipes name as implementations ("adainf.PACKAGE.MODULE:NAME"), which `resolve_name` imports."""
    text = "".join(path.read_text() for path in (ROOT / "adainf" / "recipe").glob("*.py"))
    return re.findall(r'"(adainf(?:\.\w+)+):\w+"', text)


@cache
def imports(module: str) -> tuple[str, ...]:
    """All imports of a module, including those in functions. `from a import b` yields a and a.b, as b may be a module.

    `resolve_name` counts as an import of all implementations in the module's package.
    """
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
            if (node.module, node.names[0].name) == ("pkgutil", "resolve_name"):
                package = ".".join(module.split(".")[:2])
                yield from (name for name in implementations() if name.startswith(f"{package}."))


def others(*modules: str) -> set[str]:
    """The third-party packages that modules of ours import, directly or indirectly."""
    found, seen, ahead = set[str](), {"adainf"}, list(modules)  # only users call the functions of the package itself
    while ahead:
        module = ahead.pop()
        if module in seen or not file_of(module).exists():
            continue
        seen.add(module)
        ahead += [name for name in [module.rpartition(".")[0], *imports(module)] if name.split(".")[0] == "adainf"]
        found |= {name.split(".")[0] for name in imports(module)}
    return found - sys.stdlib_module_names - {"adainf"}


@cache
def installed() -> Mapping[str, list[str]]:
    return packages_distributions()


@cache
def distributions(package: str) -> set[str]:
    """The distributions that provide an import, by their names in locks."""
    return {name.lower().replace("_", "-") for name in installed().get(package, [package])}


@pytest.mark.heavy
@pytest.mark.parametrize("target", IMAGES)
def test_imports_of_the_stages_are_in_the_locks(target: str) -> None:
    """Would catch a stage that works on a developer's machine and fails with an ImportError in its pod."""
    image = IMAGES[target]
    locked = {name for lock in image["locks"] for name in pins(lock)}
    entries = [ENTRIES.get(what, f"adainf.stages.{what}") for what in image["runs"]]
    assert all(file_of(entry).exists() for entry in entries)
    missing = {name for name in others(*entries) if not locked & distributions(name)}
    assert missing == {name for name, targets in ABSENT.items() if target in targets}


@pytest.mark.parametrize("overlay", [None, "cpu"])
def test_each_stage_runs_in_an_image_for_it(overlay: str | None) -> None:
    """Would catch a stage moved to an image without its packages."""
    found = 0
    for each in pods(rendered(overlay)):
        container = each.spec["containers"][0]
        if container["command"][-2:] == ["-m", "adainf.kubernetes.launcher"]:
            target = container["image"].removeprefix("adainf-").partition(":")[0]
            assert container["args"][0] in IMAGES[target]["runs"]
            found += 1
    assert found == len({stage for image in IMAGES.values() for stage in image["runs"]} - ENTRIES.keys())


def test_images_with_torch_hold_one_version_of_everything() -> None:
    """Would catch a layer that installs a second torch: gigabytes more, which nodes with another image pull again."""
    locks = ["torch/requirements.lock", "train-cpu/torch.txt", "train-cpu/requirements.lock", "generate/requirements.lock"]
    reference = pins("train/requirements.lock")
    for lock in locks:
        found = pins(lock)
        shared = found.keys() & reference.keys()
        assert shared
        assert {name: found[name] for name in shared} == {name: reference[name] for name in shared}, lock
