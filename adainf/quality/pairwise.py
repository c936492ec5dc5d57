"""Pairwise products and distances of two sets of features, in blocks: memory does not depend on the sizes of the sets.

Sums are float64: |a - b|² = |a|² + |b|² - 2 a·b suffers from cancellation, and a copy must come out nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Features = NDArray[Any]
"""N x D of any numeric type."""
_BLOCK_BYTES = 64 << 20
_ROWS = 1024

Block = tuple[slice, slice, Tensor]
"""Rows of the queries, rows of the targets, and a float64 value for each of their pairs."""


def products(queries_nD: Features, targets_ND: Features, device: torch.device) -> Iterator[Block]:
    """a·b of every pair; all targets of a block of queries come before the next queries."""
    for rows, columns, query_bD, target_BD in _pairs(queries_nD, targets_ND, device):
        yield rows, columns, query_bD @ target_BD.T


def distances(queries_nD: Features, targets_ND: Features, device: torch.device) -> Iterator[Block]:
    """|a - b| of every pair, in the order of `products`."""
    for rows, columns, query_bD, target_BD in _pairs(queries_nD, targets_ND, device):
        squares_bB = torch.addmm(target_BD.square().sum(1), query_bD, target_BD.T, alpha=-2)
        squares_bB += query_bD.square().sum(1)[:, None]
        yield rows, columns, squares_bB.clamp_(min=0).sqrt_()


def _pairs(queries_nD: Features, targets_ND: Features, device: torch.device) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    width = queries_nD.shape[1]
    height = max(1, min(_ROWS, _BLOCK_BYTES // (8 * width)))
    breadth = max(1, _BLOCK_BYTES // (8 * max(width, height)))
    for top in range(0, len(queries_nD), height):
        rows = slice(top, min(top + height, len(queries_nD)))
        query_bD = _float64(queries_nD[rows], device)
        for left in range(0, len(targets_ND), breadth):
            columns = slice(left, min(left + breadth, len(targets_ND)))
            yield rows, columns, query_bD, _float64(targets_ND[columns], device)


def _float64(part: Features, device: torch.device) -> Tensor:
    return torch.from_numpy(part.astype(np.float64)).to(device)


class Neighbours(NamedTuple):
    """The k nearest targets of each of n queries, nearest first."""

    distances: NDArray[np.float64]
    """n x k."""
    indices: NDArray[np.int64]
    """n x k."""


def nearest(queries_nD: Features, targets_ND: Features, count: int, device: torch.device) -> Neighbours:
    """The `count` nearest targets of every query. A query that is among the targets finds itself first, at (nearly) 0."""
    near = torch.full((len(queries_nD), count), torch.inf, dtype=torch.float64, device=device)
    indices = torch.zeros((len(queries_nD), count), dtype=torch.int64, device=device)
    for rows, columns, distance_bB in distances(queries_nD, targets_ND, device):
        best, place = distance_bB.topk(min(count, distance_bB.shape[1]), largest=False)
        both = torch.cat([near[rows], best], 1)
        near[rows], chosen = both.topk(count, largest=False)
        indices[rows] = torch.cat([indices[rows], place + columns.start], 1).gather(1, chosen)
    return Neighbours(near.cpu().numpy(), indices.cpu().numpy())
