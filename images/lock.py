"""Regenerates all lock files of images/ from pyproject.toml: ``make lock``. Needs uv (pip install uv)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
CUDA = r"torch|torchvision|triton|(?:cuda|nvidia)-[\w-]+"
"""Packages of torch's CUDA build."""


def lock(target: str, *options: str, source: str = "pyproject.toml", text: str | None = None) -> list[str]:
    """Write images/TARGET/requirements.lock. Returns the names of its packages."""
    path = ROOT / "images" / target / "requirements.lock"
    command = ["uv", "pip", "compile", source, "--python-version=3.11", "--python-platform=x86_64-manylinux_2_28", "--upgrade"]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate", "--quiet", f"--output-file={path}"]
    subprocess.run([*command, *options], cwd=ROOT, check=True, text=True, input=text)
    return re.findall(r"^([\w-]+)==", path.read_text(), re.MULTILINE)


def main() -> None:
    lock("controller", "--extra=kubernetes", "--no-emit-package=numpy", "--no-emit-package=pillow")
    lock("browse", "--extra=browse")
    train = lock("train", "--extra=train", "--extra=fast", "--constraint=constraints.txt")
    as_train = "--constraint=images/train/requirements.lock"  # equal versions, so that images share layers
    lock("torch", as_train, source="-", text="torch\ntorchvision\n")
    lock("generate", "--extra=generate", as_train)
    cuda = [f"--no-emit-package={name}" for name in train if re.fullmatch(CUDA, name)]
    lock("train-cpu", "--extra=train", "--extra=fast", as_train, *cuda)  # torch.txt is maintained by hand


if __name__ == "__main__":
    main()
