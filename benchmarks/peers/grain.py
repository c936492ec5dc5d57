"""Grain: a sample by its index, one at a time; sources interleaved exactly. It reads neither tars nor S3: arrays here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, REAL_SHARE, SOURCES, encoded, once, pixels

PACKAGE = "grain"
IMPORTS = ("grain",)
CACHED = {"png": "PNG in memory, decoded by PIL; mix, shuffle", "raw": "memory-mapped array; mix, shuffle"}


def write(folder: str) -> None:
    def lists(to: Path) -> None:
        for source in SOURCES:
            samples = list(encoded(Path(folder), source, "png"))
            (to / f"{source}.bin").write_bytes(b"".join(samples))
            np.save(to / f"{source}.npy", np.cumsum([0, *map(len, samples)]))

    once(Path(folder) / "grain", lists)


def cached(folder: Path, variant: str) -> Iterator[int]:
    import grain

    datasets = []
    for seed, source in enumerate(SOURCES):
        dataset = grain.MapDataset.source(_source(folder, source, variant)).shuffle(seed=seed)
        datasets.append((dataset.map(pixels) if variant == "png" else dataset).repeat())
    mixed = grain.MapDataset.mix(datasets, weights=[REAL_SHARE, 1 - REAL_SHARE]).batch(BATCH)
    for batch in mixed.to_iter_dataset(grain.ReadOptions(num_threads=0)):  # its 16 threads cost 3 times the CPU here
        yield len(batch)


def _source(folder: Path, source: str, variant: str) -> Any:
    if variant == "raw":
        return np.load(folder / f"{source}.npy", mmap_mode="r")
    data, ends = (folder / "grain" / f"{source}.bin").read_bytes(), np.load(folder / "grain" / f"{source}.npy").tolist()
    return [data[first:last] for first, last in itertools.pairwise(ends)]


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """Its exact mix, sliced by rank as its documentation recommends."""
    import grain

    sources = [grain.MapDataset.source([number]).repeat() for number in (0, 1)]
    mixed = grain.MapDataset.mix(sources, weights=[REAL_SHARE, 1 - REAL_SHARE])
    per_rank = batch // world
    counts = []
    for rank in range(world):
        mine = mixed[rank::world]
        counts.append([sum(mine[step * per_rank + at] == 0 for at in range(per_rank)) for step in range(batches)])
    return np.transpose(counts).tolist()
