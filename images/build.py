"""Builds the images of images/matrix.yaml and runs each: ``python images/build.py [TARGET …] [-- OPTION …]``.

Takes docker, or else buildah, which can build inside a container (`--isolation chroot --network host`). What follows ``--``
goes to the build, ``--build-arg BASE=…`` say.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
VERSION = "0.1.0"
USER = "12345:0"
"""Any uid, in group 0, as OpenShift runs containers."""


def build(target: str, options: list[str]) -> None:
    tool = "docker" if shutil.which("docker") else "buildah"
    subprocess.run([tool, "build", *options, "--target", target, "--tag", f"adainf-{target}:{VERSION}", str(ROOT)], check=True)
    for command in (["adainf", "--version"], ["adainf", "doctor"]):
        _run(tool, f"adainf-{target}:{VERSION}", command)


def _run(tool: str, image: str, command: list[str]) -> None:
    if tool == "docker":
        flags = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--user", USER]
        subprocess.run(["docker", "run", *flags, image, *command], check=True)
        return
    made = subprocess.run(["buildah", "from", "--pull=never", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["buildah", "run", "--user", USER, made, "--", *command], check=True)
    finally:
        subprocess.run(["buildah", "rm", made], check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str]) -> None:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    matrix = yaml.safe_load((ROOT / "images" / "matrix.yaml").read_text())
    for target in arguments[:at] or [image["target"] for image in matrix["images"]]:
        build(target, arguments[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
