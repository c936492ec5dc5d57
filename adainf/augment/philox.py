"""Philox4x32-10, a counter-based generator (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).

A random number is a hash of its counter, so it depends neither on earlier draws nor on the process that draws it. Only
integer arithmetic is used, so every device gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
WORDS = 4
"""32-bit words per counter."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """The block of random words at each counter: four int64 tensors of equal shape that hold 32 bits → shape x 4, likewise."""
    c0, c1, c2, c3 = counter
    for round_ in range(_ROUNDS):
        k0, k1 = ((word + round_ * weyl) & _MASK for word, weyl in zip(key, _WEYL, strict=True))
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1.bitwise_xor_(c1).bitwise_xor_(k0), low1, high0.bitwise_xor_(c3).bitwise_xor_(k1), low0
    return torch.stack([c0, c1, c2, c3], dim=-1)


def _multiply(factor: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the product of two 32-bit words, whose 64 bits would overflow a signed int64."""
    low = (words & 0xFFFF).mul_(factor)
    high = (words >> 16).mul_(factor).add_(low >> 16).bitwise_right_shift_(16)
    return high, (words * factor).bitwise_and_(_MASK)


def uniform(identities_B: Tensor, seed: int, step: int, view: int, count: int) -> Tensor:
    """B x `count` float32 in [0, 1), multiples of 2^-24: a function of image identity (int64), seed, step and view only.

    `seed` is taken modulo 2^64, `step` modulo 2^32; `view` and `count` / 4 must be below 2^16.
    """
    blocks = torch.arange(-(-count // WORDS), device=identities_B.device) + (view << 16)
    low, high, step_B = identities_B & _MASK, (identities_B >> 32) & _MASK, torch.full_like(identities_B, step & _MASK)
    counter = torch.broadcast_tensors(low[:, None], high[:, None], step_B[:, None], blocks)
    words = philox((counter[0], counter[1], counter[2], counter[3]), (seed & _MASK, (seed >> 32) & _MASK))
    return (words >> 8).flatten(1)[:, :count].float() * 2.0**-24
