"""Hugging Face datasets: the same tars by its `webdataset` loader, streamed; and its own Arrow files, gathered by index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, REAL_SHARE, SIZE_PX, SOURCES, batch_sizes, decode, encoded, once

PACKAGE = "datasets"
IMPORTS = ("datasets",)
CACHED = {
    "png": "tars of PNG, decoded by it; interleave, shuffle(1000)",
    "raw": "tars of raw bytes; interleave, shuffle(1000)",
    "arrow": "Arrow files of raw bytes, by batch; interleave, shuffle",
}
SHARES = [REAL_SHARE, 1 - REAL_SHARE]


def write(folder: str) -> None:
    from datasets import Dataset

    from benchmarks.data import tars

    def files(to: Path) -> None:
        for source in SOURCES:
            Dataset.from_dict({"image": list(encoded(Path(folder), source, "raw"))}).save_to_disk(to / source)

    tars(Path(folder))
    once(Path(folder) / "arrow", files)


def cached(folder: Path, variant: str) -> Iterator[int]:
    return _from_arrow(folder) if variant == "arrow" else _from_tars(folder, variant)


def _from_arrow(folder: Path) -> Iterator[int]:
    from datasets import interleave_datasets, load_from_disk

    sources = [load_from_disk(folder / "arrow" / source).shuffle(seed=0) for source in SOURCES]
    mixed = interleave_datasets(sources, SHARES, seed=0, stopping_strategy="all_exhausted")
    while True:
        for batch in mixed.iter(BATCH, drop_last_batch=True):
            yield len(np.frombuffer(b"".join(batch["image"]), np.uint8).reshape(-1, SIZE_PX, SIZE_PX, 3))


def _from_tars(folder: Path, variant: str) -> Iterator[int]:
    from datasets import interleave_datasets, load_dataset

    sources = []
    for source in SOURCES:
        files = sorted(map(str, (folder / "tars").glob(f"{source}-{variant}-*.tar")))
        dataset = load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)
        sources.append(dataset.shuffle(seed=0, buffer_size=1000))
    mixed = interleave_datasets(sources, SHARES, seed=0, stopping_strategy="all_exhausted")
    return batch_sizes(_image(sample, variant) for sample in mixed)


def _image(sample: dict[str, Any], variant: str) -> Any:
    return decode(sample["bin"], variant) if variant == "raw" else np.asarray(sample["png"])


def real_counts(folder: Path, world: int, batches: int, batch: int) -> list[list[int]]:
    """`interleave_datasets` of two endless sources, split by node."""
    from datasets import IterableDataset, interleave_datasets
    from datasets.distributed import split_dataset_by_node

    sources = [IterableDataset.from_generator(_endless, gen_kwargs={"number": [number] * world}) for number in (0, 1)]
    counts = []
    for rank in range(world):
        mixed = interleave_datasets(sources, SHARES, seed=42)
        samples = iter(split_dataset_by_node(mixed, rank, world))
        counts.append([sum(next(samples)["number"] == 0 for _ in range(batch // world)) for _ in range(batches)])
    return np.transpose(counts).tolist()


def _endless(number: list[int]) -> Iterator[dict[str, int]]:
    while True:
        yield {"number": number[0]}
