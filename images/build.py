"""Builds the images of images/matrix.yaml, smoke-tests each, and writes its bill of materials.

``python images/build.py [TARGET …] [-- OPTION …]``

Uses docker if its daemon responds, else buildah, which also works in a container (`--isolation chroot --network host`, and
BUILDAH_ISOLATION=chroot to run images). Options after ``--`` are passed to the build, for example ``--build-arg BASE=…``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import yaml

from adainf import __version__

ROOT = Path(__file__).parent.parent
SBOM = ROOT / "dist" / "sbom"
"""A bill of materials of each image."""
USER = "12345:0"
"""An arbitrary uid in group 0, as on OpenShift."""


def tool_here() -> str:
    """`docker` if its daemon responds (the client can be installed without one), else `buildah`."""
    docker = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    return "docker" if docker else "buildah"


def build(tool: str, target: str, options: list[str]) -> None:
    subprocess.run(
        [tool, "build", *options, "--target", target, "--tag", f"adainf-{target}:{__version__}", str(ROOT)], check=True
    )
    image = f"adainf-{target}:{__version__}"
    for command in (["adainf", "--version"], ["adainf", "doctor"]):
        _run(tool, image, command)
    SBOM.mkdir(parents=True, exist_ok=True)
    with (SBOM / f"{target}.cdx.json").open("wb") as output:
        _run(tool, image, ["python", "-c", (ROOT / "images" / "sbom.py").read_text(), image], output)


def _run(tool: str, image: str, command: list[str], output: IO[bytes] | None = None) -> None:
    if tool == "docker":
        flags = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--user", USER]
        subprocess.run(["docker", "run", *flags, image, *command], check=True, stdout=output)
        return
    made = subprocess.run(["buildah", "from", "--pull=never", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["buildah", "run", "--user", USER, made, "--", *command], check=True, stdout=output)
    finally:
        subprocess.run(["buildah", "rm", made], check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str]) -> None:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    tool = tool_here()
    matrix = yaml.safe_load((ROOT / "images" / "matrix.yaml").read_text())
    for target in arguments[:at] or [image["target"] for image in matrix["images"]]:
        build(tool, target, arguments[at + 1 :])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:  # the tool has printed the reason
        sys.exit(f"{' '.join(error.cmd)} failed with exit code {error.returncode}: see its output above")
