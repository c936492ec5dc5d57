"""torch's TensorDataset and DataLoader over images in memory: what many take for the limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import BATCH, SOURCES

PACKAGE = "torch"
IMPORTS = ("torch",)
CACHED = {"sample": "in memory, DataLoader by sample", "batch": "in memory, DataLoader with a BatchSampler"}


def cached(folder: Path, variant: str) -> Iterator[int]:
    """The sizes of the sources alone make the mix of 1/3 : 2/3."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    images = torch.from_numpy(np.concatenate([np.load(folder / f"{source}.npy") for source in SOURCES]))
    dataset = TensorDataset(images)
    loader: Any
    if variant == "batch":
        sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=True)
        loader = DataLoader(dataset, sampler=sampler, batch_size=None)
    else:
        loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    while True:
        for (batch,) in loader:
            yield len(batch)
