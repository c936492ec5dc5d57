"""What the order of samples is worth, from ids alone: how well batches are shuffled, and how exact their mixture is."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.child import Values
from benchmarks.data import REAL_SHARE

SHARDS, SHARD = 100, 1000
MANY_RANKS = 8
"""Of which the counts of whole batches are taken: peers that draw the same on all ranks show it there."""


def same_shard(peer: str, variant: str, folder: str) -> Values:
    """P(two samples of a batch lie in one shard), and its ratio to that of a permutation of all samples."""
    shares = []
    for shard_numbers in importlib.import_module(peer).shard_numbers(variant, Path(folder)):
        counts, size = np.bincount(shard_numbers, minlength=SHARDS), len(shard_numbers)
        shares.append((counts * (counts - 1)).sum() / (size * (size - 1)))
    ideal = (SHARD - 1) / (SHARDS * SHARD - 1)
    return {"share": float(np.mean(shares)), "ratio": float(np.mean(shares) / ideal)}


def exactness(peer: str, folder: str, worlds: Sequence[int], batches: int, batch: int) -> Values:
    """Real samples at a share of 1/3: by batch over `MANY_RANKS` ranks, and how far a rank is off its share at most."""
    found: Values = {}
    for world in worlds:
        counts = np.array(importlib.import_module(peer).real_counts(Path(folder), world, batches, batch))
        sizes = _rank_sizes(batch, world, peer)
        if world == MANY_RANKS:
            whole = counts.sum(1)
            found |= {"min": float(whole.min()), "max": float(whole.max()), "sd": float(whole.std())}
        found[f"off_{world}"] = float(np.abs(counts - REAL_SHARE * sizes).max())
        found[f"least_{world}"], found[f"most_{world}"] = float(counts.min()), float(counts.max())
    return found


def _rank_sizes(batch: int, world: int, peer: str) -> np.ndarray:
    """Samples of each rank: we split unevenly by at most one, peers get what divides."""
    if not peer.endswith(".ours"):
        return np.full(world, batch // world)
    return np.diff(np.arange(world + 1) * batch // world)
