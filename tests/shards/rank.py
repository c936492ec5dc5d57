"""``python -m tests.shards.rank FOLDER RANK WORLD STEPS WINDOW``: one rank in its own process, which tests kill.

Reads STEPS batches of the mixture at FOLDER, in windows of so many shards (0: none), and prints a digest of each, the step
before it.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from adainf.shards import Batch, Source, open_stream


def digest(batch: Batch) -> str:
    parts = (batch.images, batch.sources, batch.indices, batch.labels)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def main(folder: str, rank: str, world: str, steps: str, window: str) -> None:
    sources: dict[str, Source | str] = {"real": Source(f"{folder}/real", weight=10), "generated": f"{folder}/generated"}
    with open_stream(sources, 48, 0, rank=int(rank), world=int(world), window_shards=int(window) or None) as stream:
        for batch, _ in zip(stream, range(int(steps)), strict=False):
            print(batch.step, digest(batch), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
