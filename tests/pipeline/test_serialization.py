"""Serialization: round trips, equal values give equal bytes, corruption is one sentence."""

from __future__ import annotations

import pytest
import torch

from adainf.errors import BadInput
from adainf.pipeline.serialization import decode, encode, flatten_optimizer, restore_optimizer

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3), "c.d": torch.ones(2, dtype=torch.float64)}
EXTRA = {"step": 7, "curve": [[1, 2.5]], "nothing": None}


def test_round_trip_and_same_bytes_in_any_order() -> None:
    data = encode(TENSORS, EXTRA)
    assert encode(dict(reversed(TENSORS.items())), dict(reversed(EXTRA.items()))) == data
    tensors, extra = decode(data, "x")
    assert extra == EXTRA
    assert all(torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items())


def test_a_corrupt_file_is_one_sentence() -> None:
    data = encode(TENSORS, EXTRA)
    for corrupt in (b"", data[:7], data[:50], data[:-1], b"\x80\x04" + data):
        with pytest.raises(BadInput, match=r"^model.safetensors is corrupt .*delete it and run its stage again$"):
            decode(corrupt, "model.safetensors")


def test_every_bit_flip_is_detected() -> None:
    data = bytearray(encode(TENSORS, EXTRA))
    for at in range(8, len(data)):
        data[at] ^= 1
        try:
            tensors, extra = decode(bytes(data), "x")
        except BadInput:
            pass
        else:  # for example insignificant whitespace in the header
            assert extra == EXTRA
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
        data[at] ^= 1


def test_adam_resumes_exactly() -> None:
    def train(parameter: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
            optimizer.step()

    start = torch.tensor([1.0, -2.0])
    uninterrupted = start.clone().requires_grad_()
    train(uninterrupted, torch.optim.Adam([uninterrupted], 0.1), 6)

    half = start.clone().requires_grad_()
    first = torch.optim.Adam([half], 0.1)
    train(half, first, 3)
    saved, _ = decode(encode(flatten_optimizer(first), None), "x")
    resumed = half.detach().clone().requires_grad_()
    second = torch.optim.Adam([resumed], 0.1)
    restore_optimizer(second, saved)
    train(resumed, second, 3)
    assert torch.equal(resumed, uninterrupted)
